/** Owns connected clients: what happens when one opens, sends, falls silent, reads too slowly, expires and closes. */

import type { Grant } from '../access/grant.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { closing, NOTIFICATION_BYTES, type Refusal } from '../refusal.ts'
import type { Broker } from './broker.ts'
import type { Client, Protocol } from './client.ts'
import { createClientLog, createId, type Identity } from './client-log.ts'
import { createEndings, type Ending } from './ending.ts'
import type { MetaEvents } from './events.ts'
import type { Hub } from './hub.ts'
import { type Clock, createLiveness, type Lively } from './liveness.ts'
import { createPublisher, type Publishing } from './publisher.ts'
import { createRateLimit, type Rate } from './rate.ts'
import { type Beginning, createReadings, type Reading } from './reading.ts'
import { createSlowReaders } from './slow-readers.ts'

/** A connected client: what is kept of it. */
export interface Session extends Identity, Lively, Rate, Publishing, Ending, Reading {
  readonly grant: Grant
  readonly protocol: Protocol
  /** Nobody until the session opens. */
  client: Client
  readonly beginning: Beginning
  /** Milliseconds of the monotonic clock. */
  openedAt: number
  /** Whether it was said that it sends and may not. */
  isIgnored: boolean
}

export interface Sessions {
  /** Those that are open or about to be. */
  readonly count: number
  /** Open ones by mode. */
  readonly modes: () => Readonly<Record<string, number>>
  /**
   * Makes a session, which counts from now on, until it is closed or discarded.
   *
   * @param address where the client comes from.
   * @param beginning where a reader begins.
   * @returns the session, and a promise where its channels do not stand yet: a refusal for each that cannot.
   */
  create(
    grant: Grant,
    protocol: Protocol,
    address: string,
    beginning?: Beginning,
  ): { readonly session: Session; readonly ready: Promise<readonly (Refusal | undefined)[]> | undefined }
  /** Undoes `create` where the client did not come to be. */
  discard(session: Session): void
  /** The client is there. */
  open(session: Session, client: Client): void
  /** A message of the client: text as it was sent, or its bytes. */
  message(session: Session, message: string | Uint8Array): void
  /** A ping of the client, which somebody else answers. */
  ping(session: Session): void
  pong(session: Session): void
  /** The client is gone. @param code a WebSocket close code, that of a frame which was sent or received; 1006 without one. */
  closed(session: Session, code: number, reason: string): void
  /** To be told the bytes of each text that was handed to readers, and how many those are. Drops readers that are too slow. */
  handedOn(bytes: number, readers: number): void
  /**
   * Tells every reader that can be told what it may have missed between two times, in milliseconds of UNIX time, and where others are
   * not to go on without a word, closes them.
   */
  missed(from: number | undefined, to: number): void
  /** Tells every reader of kept channels that it may have missed messages. */
  historyLost(): void
  /** Closes the readers of a channel that the broker does not deliver any more. */
  lost(channel: string): void
  /** Closes every client with 1001 and resolves when all are gone, or after some milliseconds. */
  closeAll(patience: number): Promise<void>
}

export interface SessionsOptions {
  readonly hub: Hub
  readonly broker: Pick<Broker, 'publish' | 'history'>
  /** Whether a channel's messages are kept, so that an outage of the broker misses none. */
  readonly isKept: (channel: string) => boolean
  /** The most bytes of an envelope on such channels. */
  readonly maxKeptBytes: number
  readonly meta: MetaEvents
  readonly metrics: Metrics
  readonly log: Log
  readonly forwardClaims: readonly string[] | undefined
  /** The claim that says in the log who a client is. */
  readonly logClaim: string | undefined
  readonly maxMessagesPerSecond: number
  readonly sendBufferBytes: number
  /** Whether readers that cannot be told what they may have missed are closed. */
  readonly closeAfterOutage: boolean
  /** Milliseconds between two rounds of pings. Default 15,000. */
  readonly pingEvery?: number
}

const PING_EVERY = 15_000

const clock: Clock = { wall: Date.now, monotonic: () => performance.now() }

/** Clients may choose any close code from here on (RFC 6455 section 7.4.2). Counted under one label, they cannot create 2,000 series. */
const OWN_CODES = 3000

export function createSessions(options: SessionsOptions): Sessions {
  const { hub, meta, metrics, pingEvery = PING_EVERY } = options
  const log = createClientLog(options.log, options.logClaim)
  const sessions = new Set<Session>()
  let created = 0
  const { close, drop, closeAll, gone } = createEndings(sessions, log)
  const isAbove = createRateLimit(options.maxMessagesPerSecond, clock.monotonic)
  const liveness = createLiveness<Session>({
    sessions,
    clock,
    pingEvery,
    silent: (session) => drop(session, 'SILENT'),
    expired: (session) => close(session, 'EXPIRED'),
  })
  const publish = createPublisher<Session>({
    broker: options.broker,
    limitOf: (channel) => (options.isKept(channel) ? options.maxKeptBytes + 1 : NOTIFICATION_BYTES),
    forwardClaims: options.forwardClaims,
    refused: (session) => close(session, 'REFUSED_BY_DATABASE'),
  })
  const handedOn = createSlowReaders<Session>({
    readers: sessions,
    limit: options.sendBufferBytes,
    found(session) {
      metrics.slowReaders.add()
      drop(session, 'READS_TOO_SLOWLY')
    },
  })

  const readings = createReadings<Session>({
    hub,
    history: options.broker.history,
    room: options.sendBufferBytes / 4,
    closeAfterOutage: options.closeAfterOutage,
    isOpen: (session) => sessions.has(session) && session.closure === undefined,
    close,
    handedOn,
  })

  /** Counts a frame of a client. @returns whether it may be taken. */
  function takes(session: Session): boolean {
    if (session.closure !== undefined) return false
    if (!isAbove(session)) return true
    close(session, 'TOO_FAST')
    return false
  }

  function ignore(session: Session): void {
    metrics.ignored.add()
    if (session.isIgnored) return
    session.isIgnored = true
    log.ignoring(session)
  }

  function leave(session: Session): void {
    created--
    readings.leave(session, readable(session))
  }

  return {
    get count() {
      return created
    },
    modes() {
      const counts = { r: 0, w: 0, rw: 0 }
      for (const { grant } of sessions) counts[grant.mode]++
      return counts
    },
    create(grant, protocol, address, beginning) {
      const session = createSession(grant, protocol, address, beginning)
      created++
      return { session, ready: readings.join(session, readable(session)) }
    },
    discard: leave,
    open(session, client) {
      session.client = client
      session.openedAt = clock.monotonic()
      sessions.add(session)
      readings.begin(session, readable(session), session.beginning)
      metrics.opened.add(session.grant.mode)
      liveness.opened(session)
      log.opened(session)
      meta.opened(session)
    },
    message(session, message) {
      session.silentRounds = 0
      if (!takes(session)) return
      if (!session.grant.canWrite) return ignore(session)
      if (clock.wall() >= session.grant.expiresAt) return close(session, 'EXPIRED')
      const text = typeof message === 'string' ? message : decode(message)
      if (text === undefined || text.includes('\0')) return close(session, 'NOT_TEXT')
      metrics.received.add()
      metrics.receivedBytes.add(message.length)
      const fault = publish(session, text)
      if (fault) close(session, fault)
    },
    ping(session) {
      session.silentRounds = 0
      takes(session)
    },
    pong(session) {
      // One that nobody asked for is a frame like any other.
      if (!liveness.pong(session)) takes(session)
    },
    closed(session, code, reason) {
      sessions.delete(session)
      liveness.closed(session)
      leave(session)
      const { closure } = session
      // The frame that this server sent says why; a client's echo of it does not.
      const said = closure === undefined ? { code, reason } : closing(closure)
      metrics.closed.add(closure === undefined && code >= OWN_CODES ? 'own' : said.code)
      const end = { ...said, seconds: (clock.monotonic() - session.openedAt) / 1000 }
      log.closed(session, end)
      meta.closed(session, end)
      gone(session)
    },
    handedOn,
    missed(from, to) {
      for (const session of sessions) {
        const channels = readable(session).filter((channel) => !options.isKept(channel))
        if (channels.length > 0 && session.closure === undefined) readings.missed(session, channels, from, to)
      }
    },
    historyLost() {
      for (const session of sessions)
        if (session.closure === undefined && session.grant.canRead)
          readings.missed(session, readable(session), undefined, clock.wall())
    },
    lost(channel) {
      for (const session of sessions) if (readable(session).includes(channel)) close(session, 'CHANNEL_LOST')
    },
    closeAll,
  }
}

const readable = ({ grant }: Session): readonly string[] => (grant.canRead ? grant.channels : [])

const nobody: Client = {
  waiting: () => 0,
  write: () => undefined,
  join: () => undefined,
  leave: () => undefined,
  ping: () => false,
  end: () => undefined,
  drop: () => undefined,
}

const createSession = (grant: Grant, protocol: Protocol, address: string, beginning: Beginning): Session => ({
  id: createId(),
  address,
  grant,
  protocol,
  client: nobody,
  beginning,
  resuming: undefined,
  frames: undefined,
  openedAt: 0,
  silentRounds: 0,
  isPinged: false,
  expiry: undefined,
  closure: undefined,
  settled: undefined,
  isIgnored: false,
  second: 0,
  inSecond: 0,
})

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The text of a binary message; undefined when it is not UTF-8. */
function decode(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes)
  } catch {
    return undefined
  }
}
