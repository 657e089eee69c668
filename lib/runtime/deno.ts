/**
 * Owns the program's contract with its runtime, on Deno, by what Deno has of Node.js and the `ws` library: Deno's own WebSockets can
 * neither ping nor be dropped, and they close no client that sends text that is not UTF-8.
 */
import { createReadStream } from 'node:fs'
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { Socket as NetSocket } from 'node:net'
import { type Duplex, Readable, type Writable } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { bindFirst } from './address.ts'
import type { Certificate, Handlers, RunningServer, Runtime, ServeOptions, Socket, Upgrade } from './contract.ts'

/** The part of Deno that Node.js has no match for. */
declare const Deno: { readonly stderr: { write(bytes: Uint8Array): Promise<number> } }

interface Bound {
  readonly server: Server
  readonly port: number
}

function listen(
  create: () => Server,
  { host, port, reusePort }: Pick<ServeOptions, 'host' | 'port' | 'reusePort'>,
): Promise<Bound> {
  return bindFirst({ host, port }, async (hostname, ipv6Only) => {
    const server = create()
    await new Promise<void>((bound, failed) => {
      server.once('error', failed).once('listening', bound)
      server.listen({ port, host: hostname, ipv6Only, ...(reusePort ? { reusePort } : {}) })
    })
    const address = server.address()
    return { server, port: typeof address === 'object' && address !== null ? address.port : port }
  })
}

const webRequest = (request: IncomingMessage, isSecure: boolean): Request => {
  const headers = new Headers()
  for (let index = 0; index + 1 < request.rawHeaders.length; index += 2) {
    headers.append(request.rawHeaders[index] ?? '', request.rawHeaders[index + 1] ?? '')
  }
  const { method = 'GET', url = '/' } = request
  const path = url.startsWith('/') ? url : '/'
  return new Request(`${isSecure ? 'https' : 'http'}://${request.headers.host ?? 'localhost'}${path}`, {
    method: /^(CONNECT|TRACE|TRACK)$/i.test(method) ? 'OPTIONS' : method,
    headers,
  })
}

type Answer = (request: Request, source: IncomingMessage) => Response | Promise<Response>

const peerAddress = ({ socket }: IncomingMessage): string => socket.remoteAddress ?? ''

/** A file says how long it is and goes out as it is read; whatever else is short. */
const isFile = ({ headers, body }: Response): boolean => body !== null && headers.has('Content-Length')

function sendFile({ body }: Response, target: Writable): void {
  // Node.js has a type of its own for the web's streams.
  const stream = Readable.fromWeb(body as unknown as Parameters<typeof Readable.fromWeb>[0])
  stream.on('error', () => target.destroy()).pipe(target)
  target.on('close', () => stream.destroy())
}

async function respond(request: IncomingMessage, response: ServerResponse, answer: Answer, isSecure: boolean): Promise<void> {
  request.resume()
  const answered = await answer(webRequest(request, isSecure), request)
  const headers = Object.fromEntries(answered.headers)
  if (isFile(answered)) {
    response.writeHead(answered.status, headers)
    return sendFile(answered, response)
  }
  const text = Buffer.from(await answered.arrayBuffer())
  response.writeHead(answered.status, { 'content-length': text.length, ...headers })
  response.end(text)
}

/** A request that cannot be read as one of the web's ends its connection. */
const listener =
  (answer: Answer, isSecure: boolean): RequestListener =>
  (request, response) => {
    respond(request, response, answer, isSecure).catch(() => response.destroy())
  }

/** Answers over the bare socket of a request that asked for an upgrade, and got none or asked for another than a WebSocket. */
async function respondBare(socket: Duplex, answered: Response): Promise<void> {
  const text = isFile(answered) ? undefined : Buffer.from(await answered.arrayBuffer())
  const headers = {
    ...(text ? { 'content-length': text.length } : {}),
    ...Object.fromEntries(answered.headers),
    connection: 'close',
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`HTTP/1.1 ${answered.status} ${STATUS_CODES[answered.status]}\r\n${lines.join('')}\r\n`)
  if (text) socket.end(text)
  else sendFile(answered, socket)
}

/** The close codes that `ws` sends of its own accord, by the code of its error. */
const faultCodes: Readonly<Record<string, number>> = {
  WS_ERR_INVALID_UTF8: 1007,
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: 1009,
}

/** RFC 6455 section 4.1: 16 bytes in base64. */
const KEY = /^[+/0-9A-Za-z]{22}==$/

/** RFC 6455 section 4.4. */
const VERSION = '13'

const isHandshake = ({ method, headers, httpVersion }: IncomingMessage): boolean =>
  method === 'GET' &&
  httpVersion !== '1.0' &&
  KEY.test(headers['sec-websocket-key'] ?? '') &&
  headers['sec-websocket-version'] === VERSION

async function serve<D>(options: ServeOptions, handlers: Handlers<D>): Promise<RunningServer> {
  const topics = new Map<string, Set<Socket<D>>>()
  const sockets = new Set<NetSocket>()
  let chosen: Headers | undefined
  const acceptor = new WebSocketServer({
    noServer: true,
    maxPayload: options.messageBytes,
    perMessageDeflate: false,
    clientTracking: false,
    handleProtocols: () => chosen?.get('Sec-WebSocket-Protocol') ?? false,
  })
  acceptor.on('headers', (lines) => {
    for (const [name, value] of chosen ?? []) if (!/^sec-websocket-protocol$/i.test(name)) lines.push(`${name}: ${value}`)
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

  async function upgradeRequest(request: IncomingMessage, socket: Duplex, head: Buffer, isSecure: boolean): Promise<void> {
    socket.on('error', () => socket.destroy())
    const version = request.headers['sec-websocket-version'] ?? VERSION
    if (version !== VERSION)
      return respondBare(socket, new Response(null, { status: 426, headers: { 'Sec-WebSocket-Version': VERSION } }))
    let isUpgraded = false
    const upgrade: Upgrade<D> = (_, data, headers) => {
      if (!isHandshake(request)) return false
      chosen = headers
      acceptor.handleUpgrade(request, socket, head, (opened) => {
        isUpgraded = true
        handlers.open(wrap(opened, data))
      })
      return isUpgraded
    }
    const answered = await handlers.request(webRequest(request, isSecure), upgrade, () => peerAddress(request))
    if (!isUpgraded) await respondBare(socket, answered)
  }

  const bind = (port: number, tls: Certificate | undefined): Promise<Bound> =>
    listen(
      () => {
        // A request that asks for no upgrade gets an upgrade all the same from nobody.
        const plain = listener(
          (asked, source) =>
            handlers.request(
              asked,
              () => false,
              () => peerAddress(source),
            ),
          tls !== undefined,
        )
        const server = tls ? createHttpsServer({ cert: tls.cert, key: tls.key }, plain) : createHttpServer(plain)
        server.on('upgrade', (request, socket, head) => {
          upgradeRequest(request, socket, head, tls !== undefined).catch(() => socket.destroy())
        })
        server.on(tls ? 'secureConnection' : 'connection', (socket: NetSocket) => {
          sockets.add(socket)
          socket.on('close', () => sockets.delete(socket))
        })
        return server
      },
      { ...options, port },
    )

  let current = await bind(options.port, options.tls)
  let isAccepting = true
  return {
    port: current.port,
    publish(topic, text) {
      for (const reader of topics.get(topic) ?? []) reader.send(text)
    },
    async renewCertificate(tls) {
      if (!isAccepting) return
      const { server, port } = current
      server.close()
      current = await bind(port, tls)
      if (!isAccepting) current.server.close()
    },
    stopAccepting() {
      isAccepting = false
      current.server.close()
    },
    // The library calls a WebSocket closed when its client has hung up.
    hungUp: () => Promise.resolve(),
    stop() {
      current.server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

export const runtime: Runtime = {
  serve,
  serveHttp: async ({ host, port }, request) => {
    const { server, port: bound } = await listen(() => createHttpServer(listener(request, false)), {
      host,
      port,
      reusePort: false,
    })
    return {
      port: bound,
      stop: () => {
        server.close()
        server.closeAllConnections()
      },
    }
  },
  // All that Deno has of Node.js waits for who reads.
  writeError: (bytes) => Deno.stderr.write(bytes),
  fileBody: (path, start, end) => Readable.toWeb(createReadStream(path, { start, end })) as unknown as ReadableStream,
}
