/** Owns events about the server itself, which go to the meta channel through the database, like any message. */

import type { MetaEvent } from '../config/variables.ts'
import type { Log } from '../log.ts'
import { NOTIFICATION_BYTES } from '../refusal.ts'
import type { Broker, Outcome } from './broker.ts'
import { type End, type Identity, identified } from './client-log.ts'
import { envelope, envelopeFrame, envelopeHead } from './envelope.ts'

export interface MetaEvents {
  opened(client: Identity): void
  /** @param end with the seconds for which the connection was open. */
  closed(client: Identity, end: End & { readonly seconds: number }): void
  /** @param from @param to milliseconds of UNIX time. */
  restored(from: number, to: number): void
}

export interface MetaOptions {
  /** Undefined sends no events. */
  readonly channel: string | undefined
  readonly events: readonly MetaEvent[]
  readonly forwardClaims: readonly string[] | undefined
  readonly broker: Pick<Broker, 'publish'>
  readonly log: Log
}

export function createMetaEvents({ channel, events, forwardClaims, broker, log }: MetaOptions): MetaEvents {
  /** @param client the client that the event is about; undefined for the server itself. */
  function tell(event: MetaEvent, client: Identity | undefined, more: Readonly<Record<string, unknown>>): void {
    if (channel === undefined || !events.includes(event)) return
    const lost = (reason: string): void => log.warning('event lost', { name: event, reason, ...(client && identified(client)) })
    const message = envelope(
      envelopeFrame(envelopeHead(client?.grant.claims ?? '{}', forwardClaims), event, channel, more),
      JSON.stringify(client?.channels.join(',') ?? ''),
    )
    if (message.bytes >= NOTIFICATION_BYTES) return lost('too large for NOTIFY')
    const settled = (outcome: Outcome): void => {
      if (outcome !== 'committed') lost('refused by the database')
    }
    if (!broker.publish([message], settled)) lost('the buffer for the database is full')
  }
  return {
    opened: (client) => tell('ConnectionOpen', client, { client: client.id }),
    closed: (client, end) => tell('ConnectionClose', client, { client: client.id, ...end }),
    restored: (from, to) => tell('ListenerRestored', undefined, { from: from / 1000, to: to / 1000 }),
  }
}
