/** Owns connected clients: what happens when one opens, sends, falls silent, expires and closes. */
import { envelope, envelopeEnd, envelopeHead, NOTIFICATION_BYTES } from './envelope.ts'
import type { Grant } from './grant.ts'
import type { Hub } from './hub.ts'
import type { Log } from './log.ts'
import type { Notifier } from './notifier.ts'
import { type ClosureCode, closures } from './refusal.ts'
import type { Handlers, Socket } from './runtime/contract.ts'

/** What the program keeps with a client's socket. */
export interface Session {
  readonly grant: Grant
  /** The beginning of this client's envelopes. */
  readonly head: string
  /** The ends of its envelopes, one a channel. */
  readonly ends: readonly string[]
  /** Rounds of pings since the client was last heard. */
  silentRounds: number
  expiry: ReturnType<typeof setTimeout> | undefined
  isClosing: boolean
}

export interface Sessions extends Omit<Handlers<Session>, 'request'> {
  /** What to keep with a client's socket once it is upgraded. */
  create(grant: Grant): Session
  readonly count: number
  /** Closes every client with 1001 and resolves when all are gone, or after some milliseconds. */
  closeAll(patience: number): Promise<void>
}

export interface SessionsOptions {
  readonly hub: Hub
  readonly notifier: Notifier
  readonly metaChannel: string | undefined
  readonly log: Log
  /** Milliseconds between two rounds of pings; a client that answers none of `SILENT_ROUNDS` is gone. Default 15,000. */
  readonly pingEvery?: number
}

const PING_EVERY = 15_000
/** A client is gone that answered in none of these rounds by the next one: 60 s after the last it answered. */
const SILENT_ROUNDS = 3

export function createSessions({ hub, notifier, metaChannel, log, pingEvery = PING_EVERY }: SessionsOptions): Sessions {
  const sockets = new Set<Socket<Session>>()
  let rounds: ReturnType<typeof setInterval> | undefined
  let allGone = (): void => undefined

  function close(socket: Socket<Session>, closure: ClosureCode): void {
    const { code, reason } = closures[closure]
    socket.data.isClosing = true
    log.info('closing a client', { code, reason, channels: socket.data.grant.channels.join(',') })
    socket.close(code, reason)
  }

  /** Pings everyone, and watches those whose token expires before the next round but one. */
  function round(): void {
    for (const socket of sockets) {
      if (socket.data.silentRounds++ >= SILENT_ROUNDS) {
        log.info('dropping a client that answers no ping', { channels: socket.data.grant.channels.join(',') })
        socket.terminate()
        continue
      }
      socket.ping()
      watchExpiry(socket)
    }
  }

  /** Sets a timer for an expiry that is near; a far one would be more than a timer can hold, and cost memory for nothing. */
  function watchExpiry(socket: Socket<Session>): void {
    const { data } = socket
    const left = data.grant.expiresAt - Date.now()
    if (data.expiry !== undefined || left > 2 * pingEvery) return
    data.expiry = setTimeout(
      () => {
        data.expiry = undefined
        // The timer's clock is not the one that `exp` is written by.
        if (Date.now() < data.grant.expiresAt) watchExpiry(socket)
        else close(socket, 'EXPIRED')
      },
      Math.max(0, Math.ceil(left)),
    )
  }

  function send(socket: Socket<Session>, text: string): void {
    const { head, ends } = socket.data
    const payload = JSON.stringify(text)
    const messages = ends.map((end) => envelope(head, 'WebsocketMessage', payload, end))
    if (messages.some(({ bytes }) => bytes >= NOTIFICATION_BYTES)) return close(socket, 'TOO_LARGE')
    const refused = (): void => {
      if (!socket.data.isClosing) close(socket, 'REFUSED_BY_DATABASE')
    }
    if (!notifier.send(messages, refused)) close(socket, 'BUFFER_FULL')
  }

  function announce(session: Session): void {
    if (metaChannel === undefined) return
    const opened = envelope(
      session.head,
      'ConnectionOpen',
      JSON.stringify(session.grant.channels.join(',')),
      envelopeEnd(metaChannel),
    )
    const lost = (reason: string) => (): void => log.warning('event lost', { event: 'ConnectionOpen', reason })
    if (opened.bytes >= NOTIFICATION_BYTES) return lost('too large for NOTIFY')()
    if (!notifier.send([opened], lost('refused by the database'))) lost('the buffer for the database is full')()
  }

  return {
    get count() {
      return sockets.size
    },
    create: (grant) => ({
      grant,
      head: grant.canWrite || metaChannel !== undefined ? envelopeHead(grant.claims) : '',
      ends: grant.canWrite ? grant.channels.map((channel) => envelopeEnd(channel)) : [],
      silentRounds: 0,
      expiry: undefined,
      isClosing: false,
    }),
    open(socket) {
      const { data } = socket
      sockets.add(socket)
      rounds ??= setInterval(round, pingEvery)
      if (data.grant.canRead) {
        for (const channel of data.grant.channels) {
          hub.join(channel)
          socket.subscribe(channel)
        }
      }
      watchExpiry(socket)
      announce(data)
    },
    message(socket, message) {
      const { data } = socket
      data.silentRounds = 0
      if (!data.grant.canWrite || data.isClosing) return
      if (Date.now() >= data.grant.expiresAt) return close(socket, 'EXPIRED')
      const text = typeof message === 'string' ? message : decode(message)
      if (text === undefined || text.includes('\0')) return close(socket, 'NOT_TEXT')
      send(socket, text)
    },
    pong({ data }) {
      data.silentRounds = 0
    },
    close(socket, code, reason) {
      const { data } = socket
      sockets.delete(socket)
      clearTimeout(data.expiry)
      if (data.grant.canRead) for (const channel of data.grant.channels) hub.leave(channel)
      log.debug('client closed', { code, reason })
      if (sockets.size > 0) return
      clearInterval(rounds)
      rounds = undefined
      allGone()
    },
    closeAll(patience) {
      if (sockets.size === 0) return Promise.resolve()
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, patience)
        allGone = () => {
          clearTimeout(timer)
          resolve()
        }
        for (const socket of sockets) if (!socket.data.isClosing) close(socket, 'SHUTDOWN')
      })
    },
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The text of a binary message; undefined when it is not UTF-8. */
function decode(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes)
  } catch {
    return undefined
  }
}
