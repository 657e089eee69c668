/** Owns the port to whom messages go. Types only: a door makes clients, each a kind in one file of `lib/doors`. */
import type { ClosureCode } from '../refusal.ts'

/** Somebody whom text can be written to and who can be ended. */
export interface Client {
  /** Bytes that wait for it in the program. */
  waiting(): number
  /** Writes a text to this client alone. */
  write(text: string): void
  /** From now on it gets what its form publishes on the channel. */
  join(channel: string): void
  leave(channel: string): void
  /** Asks whether it is still there. @returns whether an answer is to be expected. */
  ping(): boolean
  /** Ends it behind all that waits, and says why. */
  end(closure: ClosureCode): void
  /** Ends it at once, without a word. */
  drop(): void
}

/** How messages read to some clients. A message is rendered once a form and published once, however many read it. */
export interface Form {
  /**
   * A message of a channel, as these clients get it.
   *
   * @param position where it stands in the history of channels; undefined where that is not kept.
   */
  render(channel: string, text: string, position: string | undefined): string
  /** Hands a rendered text to every client of this form that joined the channel. */
  publish(channel: string, rendered: string): void
}

/** What is spoken with a client. */
export interface Protocol {
  readonly name: 'plain' | 'pgws'
  readonly form: Form
  /** The text of what the server says of its own accord; undefined where such clients know no such thing. */
  readonly tell: ((event: ServerEvent) => string) | undefined
}

/** Times in seconds of UNIX time. */
export interface ServerEvent {
  readonly event: 'MessagesMissed'
  readonly channel: string
  /** Null where it is not known. */
  readonly from: number | null
  readonly to: number
}
