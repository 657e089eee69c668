/** Owns the port to whoever keeps track of connected clients. Types only. */
import type { Protocol } from './client.ts'
import type { Identity } from './client-log.ts'

export interface Registry<Client extends Registered> {
  opened(client: Client): void
  /** It is on other channels, or goes on under another token. */
  changed(client: Client): void
  closed(client: Client): void
}

/** What is known of a client. */
export interface Registered extends Identity {
  readonly protocol: Pick<Protocol, 'name'>
  /** When it was let in, ahead of the answer to its upgrade, and when it was there: milliseconds of the monotonic clock. */
  readonly admittedAt: number
  readonly openedAt: number
}
