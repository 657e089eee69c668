/** Owns how the parts that look after connected clients are joined: each gets those that it hands on to. */

import type { Grant } from '../access/grant.ts'
import type { Metrics } from '../metrics.ts'
import type { Refusal } from '../refusal.ts'
import type { Authority } from './authority.ts'
import type { Broker } from './broker.ts'
import type { ClientLog } from './client-log.ts'
import { createConversations } from './conversation.ts'
import type { Endings } from './ending.ts'
import { createFrames } from './frames.ts'
import type { Handler } from './handler.ts'
import type { Hub } from './hub.ts'
import { type Clock, createLiveness } from './liveness.ts'
import { createPublisher } from './publisher.ts'
import { createReadings } from './reading.ts'
import type { Session } from './record.ts'
import type { Registry } from './registry.ts'
import { createReviews } from './reviews.ts'
import { createRights } from './rights.ts'
import { createSlowReaders } from './slow-readers.ts'

export interface PartsOptions {
  readonly hub: Hub
  readonly broker: Pick<Broker, 'publish' | 'history'>
  /** Takes the messages of clients in place of the broker, where there is one. */
  readonly handler?: Handler | undefined
  /** Whether a channel's messages are kept, so that an outage of the broker misses none. */
  readonly isKept: (channel: string) => boolean
  /** An envelope of a channel stays below so many bytes. */
  readonly limitOf: (channel: string) => number
  readonly metrics: Metrics
  readonly forwardClaims: readonly string[] | undefined
  readonly maxMessagesPerSecond: number
  /** Of one client that sends commands. */
  readonly maxSubscriptions: number
  /** What a token allows, before any channel is asked for. */
  readonly authorize: (token: string) => Grant | Refusal | Promise<Grant | Refusal>
  /** Undefined where only tokens decide. */
  readonly authority: Authority | undefined
  /** Milliseconds after which it is asked again about each client. */
  readonly reviewEvery: number
  readonly sendBufferBytes: number
  /** Whether readers that cannot be told what they may have missed are closed. */
  readonly closeAfterOutage: boolean
  /** Undefined where nobody keeps track of clients. */
  readonly registry?: Registry<Session> | undefined
  /** Milliseconds between two rounds of pings. Default 15,000. */
  readonly pingEvery?: number
}

const PING_EVERY = 15_000

export const clock: Clock = { wall: Date.now, monotonic: () => performance.now() }

/** @param sessions the open ones. */
export function createParts(
  { hub, metrics, pingEvery = PING_EVERY, ...options }: PartsOptions,
  sessions: Set<Session>,
  endings: Endings<Session>,
  log: ClientLog,
) {
  const { close, drop } = endings
  const liveness = createLiveness<Session>({
    sessions,
    clock,
    pingEvery,
    silent: (session) => drop(session, 'SILENT'),
    isWarned: ({ conversation }) => conversation !== undefined,
    expiring: (session) => conversations.expiring(session),
    expired: (session) => close(session, 'EXPIRED'),
  })
  const publisher = createPublisher<Session>({
    broker: options.broker,
    handler: options.handler,
    limitOf: options.limitOf,
    forwardClaims: options.forwardClaims,
    refused(session, outcome) {
      if (!('rejected' in outcome)) return close(session, 'REFUSED_BY_DATABASE')
      const { rejected: channel, code, reason } = outcome
      const text = session.protocol.tell?.({ event: 'MessageRefused', channel, code, reason })
      if (text === undefined || !isOpen(session)) return
      session.client.write(text)
      handedOn(Buffer.byteLength(text), 1)
    },
  })
  const handedOn = createSlowReaders<Session>({
    readers: sessions,
    limit: options.sendBufferBytes,
    found(session) {
      metrics.slowReaders.add()
      drop(session, 'READS_TOO_SLOWLY')
    },
  })

  const changed = (session: Session): void => options.registry?.changed(session)
  const isOpen = (session: Session): boolean => sessions.has(session) && session.closure === undefined

  const readings = createReadings<Session>({
    hub,
    history: options.broker.history,
    metrics,
    room: options.sendBufferBytes / 4,
    closeAfterOutage: options.closeAfterOutage,
    isOpen,
    close,
    handedOn,
  })
  const rights = createRights<Session>(options.authority)
  const conversations = createConversations<Session>({
    readings,
    rights,
    publisher,
    history: options.broker.history,
    // A handler settles a sender's messages in their order, wherever they are published.
    isKept: options.handler ? () => false : options.isKept,
    maxSubscriptions: options.maxSubscriptions,
    authorize: options.authorize,
    renewed(session, earlier) {
      liveness.renewed(session, earlier)
      reviews?.renewed(session)
      log.renewed(session)
      changed(session)
    },
    changed,
    received({ length }) {
      metrics.received.add()
      metrics.receivedBytes.add(length)
    },
    overwhelmed: (session) => close(session, 'BUFFER_FULL'),
    isOpen,
    handedOn,
  })

  const reviews =
    options.authority &&
    createReviews<Session>({
      sessions,
      authority: options.authority,
      every: options.reviewEvery,
      now: clock.monotonic,
      isOpen,
      withdrawn: () => metrics.withdrawn.add(),
      close,
      narrow: conversations.narrow,
    })

  const frames = createFrames<Session>({
    maxMessagesPerSecond: options.maxMessagesPerSecond,
    clock,
    conversations,
    publisher,
    close,
    metrics,
    log,
  })
  return { liveness, reviews, readings, conversations, frames, handedOn }
}
