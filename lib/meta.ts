/** Owns events about the server itself, which go to the meta channel through the database, like any message. */
import { envelope, envelopeEnd, envelopeHead, NOTIFICATION_BYTES } from './envelope.ts'
import type { Log } from './log.ts'
import type { Notifier } from './notifier.ts'
import type { MetaEvent } from './variables.ts'

export interface MetaEvents {
  /** @param head the beginning of the client's envelopes, which holds its claims. */
  opened(head: string, channels: readonly string[]): void
  /** @param end the close code, its reason, and for how many seconds the connection was open. */
  closed(
    head: string,
    channels: readonly string[],
    end: { readonly code: number; readonly reason: string; readonly seconds: number },
  ): void
  /** @param from @param to milliseconds of UNIX time. */
  restored(from: number, to: number): void
}

export interface MetaOptions {
  /** Undefined tells nobody. */
  readonly channel: string | undefined
  readonly events: readonly MetaEvent[]
  readonly notifier: Notifier
  readonly log: Log
}

export function createMetaEvents({ channel, events, notifier, log }: MetaOptions): MetaEvents {
  function tell(event: MetaEvent, head: string, payload: string, more: Readonly<Record<string, unknown>> = {}): void {
    if (channel === undefined || !events.includes(event)) return
    const lost = (reason: string): void => log.warning('event lost', { event, reason })
    const message = envelope(head, event, JSON.stringify(payload), envelopeEnd(channel, more))
    if (message.bytes >= NOTIFICATION_BYTES) return lost('too large for NOTIFY')
    if (!notifier.send([message], () => lost('refused by the database'))) lost('the buffer for the database is full')
  }
  return {
    opened: (head, channels) => tell('ConnectionOpen', head, channels.join(',')),
    closed: (head, channels, end) => tell('ConnectionClose', head, channels.join(','), end),
    restored: (from, to) => tell('ListenerRestored', envelopeHead('{}'), '', { from: from / 1000, to: to / 1000 }),
  }
}
