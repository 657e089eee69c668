/** Owns WebSockets and their topics on the `ws` library. */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import type { Handlers, Socket } from './contract.ts'

export interface WebSockets<D> {
  /** Upgrades a request; `headers` go into the answer. @returns false when the request is no valid handshake. */
  accept(request: IncomingMessage, connection: Duplex, head: Buffer, data: D, headers: Headers): boolean
  /** As the contract's `publish`. */
  publish(topic: string, text: string): void
}

/** RFC 6455 section 4.4. */
export const HANDSHAKE_VERSION = '13'

export function createWebSockets<D>(messageBytes: number, handlers: Handlers<D>): WebSockets<D> {
  const topics = new Map<string, Set<Socket<D>>>()
  /** The headers of the answer that is being written. */
  let answer: Headers | undefined
  const acceptor = new WebSocketServer({
    noServer: true,
    maxPayload: messageBytes,
    perMessageDeflate: false,
    clientTracking: false,
    handleProtocols: () => answer?.get('Sec-WebSocket-Protocol') ?? false,
  })
  acceptor.on('headers', (lines) => {
    for (const [name, value] of answer ?? []) if (!/^sec-websocket-protocol$/i.test(name)) lines.push(`${name}: ${value}`)
  })

  /** A socket of the contract. */
  function wrap(socket: WebSocket, data: D): Socket<D> {
    const subscribed = new Set<string>()
    const leave = (topic: string): void => {
      const readers = topics.get(topic)
      if (readers?.delete(wrapped) && readers.size === 0) topics.delete(topic)
    }
    const wrapped: Socket<D> = {
      data,
      send: (text) => socket.send(text),
      // The library writes each frame by itself.
      cork: (work) => work(),
      subscribe(topic) {
        const readers = topics.get(topic) ?? new Set()
        topics.set(topic, readers.add(wrapped))
        subscribed.add(topic)
      },
      unsubscribe(topic) {
        leave(topic)
        subscribed.delete(topic)
      },
      ping: () => socket.ping(),
      getBufferedAmount: () => socket.bufferedAmount,
      close: (code, reason) => socket.close(code, reason),
      terminate: () => socket.terminate(),
    }
    let fault: number | undefined
    socket.on('error', (error) => {
      const code = 'code' in error ? String(error.code) : ''
      fault = faultCodes[code] ?? (code.startsWith('WS_ERR') ? 1002 : undefined)
    })
    socket.on('message', (message: Buffer, isBinary) => handlers.message(wrapped, isBinary ? message : message.toString()))
    socket.on('ping', () => handlers.ping(wrapped))
    socket.on('pong', () => handlers.pong(wrapped))
    socket.on('close', (code, reason) => {
      for (const topic of subscribed) leave(topic)
      handlers.close(wrapped, fault ?? code, reason.toString())
    })
    return wrapped
  }

  return {
    accept(request, connection, head, data, headers) {
      if (!isHandshake(request)) return false
      let isUpgraded = false
      answer = headers
      acceptor.handleUpgrade(request, connection, head, (opened) => {
        isUpgraded = true
        handlers.open(wrap(opened, data))
      })
      return isUpgraded
    },
    publish(topic, text) {
      for (const reader of topics.get(topic) ?? []) reader.send(text)
    },
  }
}

/** The close codes that `ws` sends by itself, by its error's code. */
const faultCodes: Readonly<Record<string, number>> = {
  WS_ERR_INVALID_UTF8: 1007,
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: 1009,
}

/** RFC 6455 section 4.1: 16 bytes in base64. */
const KEY = /^[+/0-9A-Za-z]{22}==$/

const isHandshake = ({ method, headers, httpVersion }: IncomingMessage): boolean =>
  method === 'GET' &&
  httpVersion !== '1.0' &&
  KEY.test(headers['sec-websocket-key'] ?? '') &&
  headers['sec-websocket-version'] === HANDSHAKE_VERSION
