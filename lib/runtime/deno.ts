/**
 * Owns the program's contract with its runtime, on Deno. It uses what Deno has of Node.js, and the `ws` library: Deno's own WebSockets can
 * neither ping nor be dropped, and they do not close a client that sends text that is not UTF-8.
 */
import { createReadStream } from 'node:fs'
import { createServer as createHttpServer, type IncomingMessage, type Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { Socket as NetSocket } from 'node:net'
import { type Duplex, Readable } from 'node:stream'
import { within } from '../waiting.ts'
import { bindFirst } from './address.ts'
import type { Certificate, Exchange, Handlers, RunningServer, Runtime, ServeOptions } from './contract.ts'
import { endedStreams, exchangeOf, listener, respondBare, webRequest } from './node-http.ts'
import { createWebSockets, HANDSHAKE_VERSION } from './ws.ts'

/** The part of Deno that Node.js has no match for. */
declare const Deno: { readonly stderr: { write(bytes: Uint8Array): Promise<number> } }

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
  // What Deno has of Node.js for this would hold the program up until somebody reads.
  writeError: (bytes) => Deno.stderr.write(bytes),
  fileBody: (path, start, end) => Readable.toWeb(createReadStream(path, { start, end })) as unknown as ReadableStream,
}

async function serve<D>(options: ServeOptions, handlers: Handlers<D>): Promise<RunningServer> {
  const connections = new Set<NetSocket>()
  const webSockets = createWebSockets(options.messageBytes, handlers)

  async function upgradeRequest(request: IncomingMessage, connection: Duplex, head: Buffer, isSecure: boolean): Promise<void> {
    connection.on('error', () => connection.destroy())
    const version = request.headers['sec-websocket-version'] ?? HANDSHAKE_VERSION
    if (version !== HANDSHAKE_VERSION)
      return respondBare(connection, new Response(null, { status: 426, headers: { 'Sec-WebSocket-Version': HANDSHAKE_VERSION } }))
    let isUpgraded = false
    const upgrade: Exchange<D>['upgrade'] = (_, data, headers) => {
      isUpgraded = webSockets.accept(request, connection, head, data, headers)
      return isUpgraded
    }
    const answered = await handlers.request(webRequest(request, isSecure), exchangeOf(request, upgrade))
    if (!isUpgraded) await respondBare(connection, answered)
  }

  const bind = (port: number, tls: Certificate | undefined): Promise<Bound> =>
    listen(
      () => {
        // Node.js tells requests for an upgrade by an event of their own, so none of these can be upgraded.
        const plain = listener(
          (asked, source) =>
            handlers.request(
              asked,
              exchangeOf<D>(source, () => false),
            ),
          tls !== undefined,
        )
        const server = tls ? createHttpsServer({ cert: tls.cert, key: tls.key }, plain) : createHttpServer(plain)
        server.on('upgrade', (request, connection, head) => {
          upgradeRequest(request, connection, head, tls !== undefined).catch(() => connection.destroy())
        })
        server.on(tls ? 'secureConnection' : 'connection', (connection: NetSocket) => {
          connections.add(connection)
          connection.on('close', () => connections.delete(connection))
        })
        return server
      },
      { ...options, port },
    )

  let current = await bind(options.port, options.tls)
  let isAccepting = true
  return {
    port: current.port,
    publish: webSockets.publish,
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
    // `ws` calls a WebSocket closed only when its client has hung up.
    hungUp: (patience) => within(patience, endedStreams()),
    stop() {
      current.server.close()
      for (const connection of connections) connection.destroy()
    },
  }
}

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
