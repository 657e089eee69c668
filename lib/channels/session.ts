/** Owns connected clients: what happens when one opens, sends, falls silent, reads too slowly, expires and closes. */

import { type Grant, readable as readableOf } from '../access/grant.ts'
import type { Log } from '../log.ts'
import { closing, type Refusal } from '../refusal.ts'
import type { Client, Protocol } from './client.ts'
import { createClientLog } from './client-log.ts'
import { createEndings } from './ending.ts'
import type { MetaEvents } from './events.ts'
import { clock, createParts, type PartsOptions } from './parts.ts'
import type { Beginning } from './reading.ts'
import { createSession, type Session } from './record.ts'

export type { Session }

export interface Sessions {
  /** Sessions that are open or about to open. */
  readonly count: number
  /** Open ones by mode. */
  readonly modes: () => Readonly<Record<string, number>>
  /**
   * Makes a session. It is counted until it is closed or discarded.
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
  /** Undoes `create` where the upgrade failed. */
  discard(session: Session): void
  /** The client is there. */
  open(session: Session, client: Client): void
  /** A message of the client: text as it was sent, or its bytes. */
  message(session: Session, message: string | Uint8Array): void
  /** A ping of the client, which the runtime answers. */
  ping(session: Session): void
  pong(session: Session): void
  /** The client is gone. @param code a WebSocket close code, that of a frame which was sent or received; 1006 without one. */
  closed(session: Session, code: number, reason: string): void
  /** Called for each text that was handed to readers, with its bytes and the number of readers. Drops readers that are too slow. */
  handedOn(bytes: number, readers: number): void
  /**
   * Tells every reader that can be told what it may have missed between two times, in milliseconds of UNIX time, and where others are
   * not to go on without a word, closes them.
   */
  missed(from: number | undefined, to: number): void
  /** Tells every reader of kept channels that it may have missed messages. */
  historyLost(): void
  /** Closes a client with 3002. */
  disconnect(session: Session, reason: string): void
  /** Closes the readers of a channel that the broker does not deliver any more. */
  lost(channel: string): void
  /** Asks at once whether every client still may what it may. */
  review(): void
  /** Closes every client with 1001 and resolves when all are gone, or after `patience` milliseconds. */
  closeAll(patience: number): Promise<void>
}

export interface SessionsOptions extends PartsOptions {
  readonly meta: MetaEvents
  readonly log: Log
  /** The claim that says in the log who a client is. */
  readonly logClaim: string | undefined
}

/** Clients may choose any close code from 3000 up (RFC 6455 section 7.4.2). They share one label, or clients could create 2,000 series. */
const OWN_CODES = 3000

export function createSessions(options: SessionsOptions): Sessions {
  const { meta, metrics, registry } = options
  const log = createClientLog(options.log, options.logClaim)
  const sessions = new Set<Session>()
  const endings = createEndings(sessions, log)
  const { liveness, reviews, readings, conversations, frames, handedOn } = createParts(options, sessions, endings, log)
  const { close, closeAll, gone } = endings
  let created = 0

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
      if (protocol.commands) session.conversation = conversations.create(session)
      return { session, ready: readings.join(session, readable(session)) }
    },
    discard: leave,
    open(session, client) {
      session.client = client
      session.openedAt = clock.monotonic()
      sessions.add(session)
      if (session.conversation) conversations.opened(session, session.beginning)
      readings.begin(session, readable(session), session.beginning)
      metrics.opened.add(session.grant.mode)
      liveness.opened(session)
      reviews?.opened(session)
      log.opened(session)
      meta.opened(session)
      registry?.opened(session)
    },
    message: frames.message,
    ping: frames.control,
    pong(session) {
      // An unsolicited pong counts like every other frame.
      if (!liveness.pong(session)) frames.control(session)
    },
    closed(session, code, reason) {
      sessions.delete(session)
      registry?.closed(session)
      liveness.closed(session)
      reviews?.closed()
      conversations.closed(session)
      leave(session)
      const { closure } = session
      // Where the server closed, its own code and reason count, not the client's echo of them.
      const said = closure === undefined ? { code, reason } : closing(closure, session.reason)
      metrics.closed.add(closure === undefined && code >= OWN_CODES ? 'own' : said.code)
      const end = { ...said, seconds: (clock.monotonic() - session.openedAt) / 1000 }
      log.closed(session, end)
      meta.closed(session, end)
      gone()
      session.channels = []
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
        if (session.closure === undefined && readable(session).length > 0)
          readings.missed(session, readable(session), undefined, clock.wall())
    },
    lost(channel) {
      for (const session of sessions) if (readable(session).includes(channel)) close(session, 'CHANNEL_LOST')
    },
    disconnect: (session, reason) => close(session, 'DISCONNECTED', reason),
    review: () => reviews?.all(),
    closeAll,
  }
}

/** Whoever sends commands is on what it reads, also between two tokens. */
const readable = ({ conversation, grant, channels }: Session): readonly string[] =>
  conversation ? channels : readableOf(grant, channels)
