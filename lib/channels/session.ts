/** Owns connected clients: what happens when one opens, sends, falls silent, reads too slowly, expires and closes. */

import type { Grant } from '../access/grant.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { type ClosureCode, NOTIFICATION_BYTES, type Refusal, refusals } from '../refusal.ts'
import type { Handlers, Socket } from '../runtime/contract.ts'
import type { Broker, Outcome } from './broker.ts'
import { createClientLog, createId, type Identity } from './client-log.ts'
import { envelope, envelopeFrames, type Frame } from './envelope.ts'
import type { MetaEvents } from './events.ts'
import type { Hub } from './hub.ts'
import { type Clock, createLiveness, type Lively } from './liveness.ts'
import { createRateLimit, type Rate } from './rate.ts'
import { createSlowReaders } from './slow-readers.ts'

/** What the program keeps with a client's socket. */
export interface Session extends Identity, Lively, Rate {
  readonly grant: Grant
  /** Whether it is told what it may have missed. */
  readonly isTold: boolean
  /** The parts of this client's envelopes around a message, one a channel; made with its first message, for most only read. */
  frames: readonly Frame[] | undefined
  /** Milliseconds of the monotonic clock. */
  openedAt: number
  /** Why the server closed it. */
  closure: ClosureCode | undefined
  /** Learns what became of each of its messages; made with the first. */
  settled: ((outcome: Outcome) => void) | undefined
  /** Whether it was said that it sends and may not. */
  isIgnored: boolean
}

export interface Sessions extends Omit<Handlers<Session>, 'request' | 'paused' | 'resumed'> {
  /** Sockets that are open or about to be. */
  readonly count: number
  /** Open sockets by mode. */
  readonly modes: () => Readonly<Record<string, number>>
  /**
   * Makes what is kept with a client's socket; it counts from now on, until it is closed or discarded.
   *
   * @param address where the client comes from.
   * @returns the session, and a promise where its channels do not stand yet: a refusal for each that cannot.
   */
  create(
    grant: Grant,
    isTold: boolean,
    address: string,
  ): { readonly session: Session; readonly ready: Promise<readonly (Refusal | undefined)[]> | undefined }
  /** Undoes `create` where the upgrade failed. */
  discard(session: Session): void
  /** To be told the bytes of each text that was handed to readers, and how many those are. Drops readers that are too slow. */
  handedOn(bytes: number, readers: number): void
  /**
   * Tells every reader that wants to know what it may have missed between two times, in milliseconds of UNIX time, and where others are not
   * to go on without a word, closes them.
   */
  missed(from: number, to: number): void
  /** Closes the readers of a channel that the database does not listen to any more. */
  lost(channel: string): void
  /** Closes every client with 1001 and resolves when all are gone, or after some milliseconds. */
  closeAll(patience: number): Promise<void>
}

export interface SessionsOptions {
  readonly hub: Hub
  readonly broker: Pick<Broker, 'publish'>
  readonly meta: MetaEvents
  readonly metrics: Metrics
  readonly log: Log
  readonly forwardClaims: readonly string[] | undefined
  /** The claim that says in the log who a client is. */
  readonly logClaim: string | undefined
  readonly maxMessagesPerSecond: number
  readonly sendBufferBytes: number
  /** Whether readers that are not told what they may have missed are closed. */
  readonly closeAfterOutage: boolean
  /** Milliseconds between two rounds of pings. Default 15,000. */
  readonly pingEvery?: number
}

const PING_EVERY = 15_000

const clock: Clock = { wall: Date.now, monotonic: () => performance.now() }

/** From here on close codes are the application's own (RFC 6455 section 7.4.2): who may choose among 2,000 must not make as many metrics. */
const OWN_CODES = 3000

export function createSessions(options: SessionsOptions): Sessions {
  const { hub, broker, meta, metrics, pingEvery = PING_EVERY } = options
  const log = createClientLog(options.log, options.logClaim)
  const sockets = new Set<Socket<Session>>()
  let created = 0
  let allGone = (): void => undefined
  const isAbove = createRateLimit(options.maxMessagesPerSecond, clock.monotonic)
  const liveness = createLiveness<Socket<Session>>({
    sockets,
    clock,
    pingEvery,
    silent: (socket) => drop(socket, 'answers no ping'),
    expired: (socket) => close(socket, 'EXPIRED'),
  })
  const handedOn = createSlowReaders<Socket<Session>>({
    readers: sockets,
    limit: options.sendBufferBytes,
    found(socket) {
      metrics.slowReaders.add()
      drop(socket, 'reads too slowly')
    },
  })

  const readable = ({ grant }: Session): readonly string[] => (grant.canRead ? grant.channels : [])

  function close(socket: Socket<Session>, closure: ClosureCode): void {
    const end = closing(closure)
    socket.data.closure = closure
    log.closing(socket.data, end)
    socket.close(end.code, end.reason)
  }

  /** Ends a connection without a close frame. Some runtimes say that it closed only later. */
  function drop(socket: Socket<Session>, fault: string): void {
    sockets.delete(socket)
    log.dropping(socket.data, fault)
    socket.terminate()
  }

  /** Counts a frame of a client. @returns whether it may be taken. */
  function takes(socket: Socket<Session>): boolean {
    if (socket.data.closure !== undefined) return false
    if (!isAbove(socket.data)) return true
    close(socket, 'TOO_FAST')
    return false
  }

  function ignore({ data }: Socket<Session>): void {
    metrics.ignored.add()
    if (data.isIgnored) return
    data.isIgnored = true
    log.ignoring(data)
  }

  function send(socket: Socket<Session>, text: string): void {
    const { data } = socket
    const payload = JSON.stringify(text)
    data.settled ??= (outcome) => {
      if (outcome !== 'committed' && data.closure === undefined) close(socket, 'REFUSED_BY_DATABASE')
    }
    data.frames ??= envelopeFrames(data.grant.claims, data.grant.channels, options.forwardClaims)
    const messages = data.frames.map((frame) => envelope(frame, payload))
    if (messages.some(({ bytes }) => bytes >= NOTIFICATION_BYTES)) return close(socket, 'TOO_LARGE')
    if (!broker.publish(messages, data.settled)) close(socket, 'BUFFER_FULL')
  }

  function leave(session: Session): void {
    created--
    for (const channel of readable(session)) hub.leave(channel)
  }

  return {
    get count() {
      return created
    },
    modes() {
      const counts = { r: 0, w: 0, rw: 0 }
      for (const { data } of sockets) counts[data.grant.mode]++
      return counts
    },
    create(grant, isTold, address) {
      const session: Session = {
        id: createId(),
        address,
        grant,
        isTold,
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
      }
      created++
      const waits: Promise<Refusal | undefined>[] = []
      for (const channel of readable(session)) {
        const listening = hub.join(channel)
        if (listening !== undefined) waits.push(listening)
      }
      return { session, ready: waits.length === 0 ? undefined : Promise.all(waits) }
    },
    discard: leave,
    open(socket) {
      const { data } = socket
      sockets.add(socket)
      for (const channel of readable(data)) socket.subscribe(channel)
      data.openedAt = clock.monotonic()
      metrics.opened.add(data.grant.mode)
      liveness.opened(socket)
      log.opened(data)
      meta.opened(data)
    },
    message(socket, message) {
      const { data } = socket
      data.silentRounds = 0
      if (!takes(socket)) return
      if (!data.grant.canWrite) return ignore(socket)
      if (clock.wall() >= data.grant.expiresAt) return close(socket, 'EXPIRED')
      const text = typeof message === 'string' ? message : decode(message)
      if (text === undefined || text.includes('\0')) return close(socket, 'NOT_TEXT')
      metrics.received.add()
      metrics.receivedBytes.add(message.length)
      send(socket, text)
    },
    ping(socket) {
      socket.data.silentRounds = 0
      takes(socket)
    },
    pong(socket) {
      // One that nobody asked for is a frame like any other.
      if (!liveness.pong(socket)) takes(socket)
    },
    close(socket, code, reason) {
      const { data } = socket
      sockets.delete(socket)
      liveness.closed(socket)
      leave(data)
      // The frame that this server sent says why; a client's echo of it does not.
      const said = data.closure === undefined ? { code, reason } : closing(data.closure)
      metrics.closed.add(data.closure === undefined && code >= OWN_CODES ? 'own' : said.code)
      const end = { code: said.code, reason: said.reason, seconds: (clock.monotonic() - data.openedAt) / 1000 }
      log.closed(data, end)
      meta.closed(data, end)
      if (sockets.size === 0) allGone()
    },
    handedOn,
    missed(from, to) {
      for (const socket of sockets) {
        const { isTold, grant, closure } = socket.data
        if (!grant.canRead || closure !== undefined) continue
        if (!isTold) {
          if (options.closeAfterOutage) close(socket, 'MESSAGES_MISSED')
          continue
        }
        for (const channel of grant.channels) {
          const text = JSON.stringify({ event: 'MessagesMissed', channel, from: from / 1000, to: to / 1000 })
          socket.send(text)
          handedOn(Buffer.byteLength(text), 1)
        }
      }
    },
    lost(channel) {
      for (const socket of sockets) if (readable(socket.data).includes(channel)) close(socket, 'CHANNEL_LOST')
    },
    closeAll(patience) {
      if (sockets.size === 0) return Promise.resolve()
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, patience)
        allGone = () => {
          clearTimeout(timer)
          resolve()
        }
        for (const socket of sockets) if (socket.data.closure === undefined) close(socket, 'SHUTDOWN')
      })
    },
  }
}

/** The close frame of an end that this server decides. */
const closing = (closure: ClosureCode) => ({ code: refusals[closure].close, reason: refusals[closure].reason })

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The text of a binary message; undefined when it is not UTF-8. */
function decode(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes)
  } catch {
    return undefined
  }
}
