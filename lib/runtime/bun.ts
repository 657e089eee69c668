/** Owns the program's contract with its runtime, on Bun. */
import { write } from 'node:fs'
import { bindFirst } from './address.ts'
import { hungUp } from './closing.ts'
import type { Certificate, Exchange, Handlers, RunningServer, Runtime, ServeOptions, Sink, StreamSource } from './contract.ts'
import { keepReserve } from './descriptors.ts'

type BunServer = Bun.Server<unknown>

async function serve<D>(options: ServeOptions, handlers: Handlers<D>): Promise<RunningServer> {
  let tls = options.tls
  // A socket's data is what upgrade() was given, which is a D.
  const bind = (port: number): Promise<BunServer> =>
    bindFirst({ ...options, port }, (hostname, ipv6Only) =>
      bindWebSockets(
        { hostname, port, ipv6Only, reusePort: options.reusePort, ...(tls ? { tls } : {}) },
        options,
        handlers as Handlers<unknown>,
      ),
    )
  /** Undefined while no connection is accepted. */
  let current: BunServer | undefined = await bind(options.port)
  // A stopped server does not tell its port any more.
  const port = current.port ?? options.port
  /** Servers that accept no more connections, until their last one is gone: it may still become a WebSocket. */
  const earlier = new Set<BunServer>()
  const all = (): BunServer[] => (current ? [...earlier, current] : [...earlier])
  let isAccepting = true
  let isOut = false

  function close(): void {
    const closed = current
    if (!closed) return
    current = undefined
    earlier.add(closed)
    // Bun counts a connection as gone once it has taken the close frame. Who forgets the server then may cut off what still waits.
    void closed.stop(false).then(() => {
      if (isAccepting) earlier.delete(closed)
    })
  }

  async function open(): Promise<void> {
    current = await bind(port)
    if (!isAccepting || isOut) close()
  }

  const reserve = keepReserve({
    ranOut: () => {
      isOut = true
      close()
      handlers.paused('out of file descriptors')
    },
    recovered: async () => {
      isOut = false
      await open().catch((error) => {
        isOut = true
        handlers.paused(error.message)
        throw error
      })
      handlers.resumed()
    },
  })
  return {
    port,
    publish: (topic, text) => {
      current?.publish(topic, text)
      for (const server of earlier) server.publish(topic, text)
    },
    renewCertificate: async (renewed) => {
      tls = renewed
      if (!isAccepting || isOut) return
      // Bun's reload() leaves the certificate as it is.
      close()
      await open()
    },
    stopAccepting: () => {
      isAccepting = false
      reserve.stop()
      close()
    },
    hungUp: (patience) => {
      for (const server of all()) server.closeIdleConnections()
      return hungUp(port, patience)
    },
    stop: () => {
      reserve.stop()
      for (const server of all()) void server.stop(true)
    },
  }
}

/** The close code of a frame that Bun sends by itself, by its reason. Bun's callback says 1006 for all of them. */
function wireCode(code: number, reason: string): number {
  if (code !== 1006 || reason === '') return code
  if (reason === 'Received too big message') return 1009
  return reason === 'Received invalid UTF-8' ? 1007 : 1002
}

interface Address {
  readonly hostname: string
  readonly port: number
  readonly ipv6Only: boolean
  readonly reusePort: boolean
  readonly tls?: Certificate
}

function bindWebSockets(address: Address, options: ServeOptions, handlers: Handlers<unknown>): BunServer {
  const server = Bun.serve<unknown>({
    ...address,
    fetch: (request) => handlers.request(request, exchange),
    websocket: {
      open: handlers.open,
      message: handlers.message,
      ping: handlers.ping,
      pong: handlers.pong,
      close: (socket, code, reason) => handlers.close(socket, wireCode(code, reason), reason),
      // With a limit, publish() silently skips a socket above it, whose client would see a gap. The program drops such a client instead.
      backpressureLimit: 0,
      maxPayloadLength: options.messageBytes,
      // Bun pings only idle sockets: the program pings all of them itself.
      idleTimeout: 0,
      sendPings: false,
      perMessageDeflate: false,
    },
  })
  const exchange: Exchange<unknown> = {
    upgrade: (request, data, headers) => server.upgrade(request, { data, headers }),
    address: (request) => server.requestIP(request)?.address ?? '',
    hold: (request, seconds) => server.timeout(request, seconds),
    stream(request, headers, source) {
      server.timeout(request, 0)
      const body = new StreamBody(source)
      // The web's type knows no such source, for it is Bun's own.
      return new Response(new ReadableStream(body as unknown as UnderlyingSource), { headers })
    },
  }
  return server
}

/** Milliseconds that an answer which has ended gets to be read to its end. */
const END_PATIENCE = 10_000

/** A body that Bun writes at once, and of which it says when the client does not keep up. What comes then waits here, uncopied. */
class StreamBody implements Sink, Bun.DirectUnderlyingSource {
  readonly type = 'direct'
  private controller: ReadableStreamDirectController | undefined
  private fail: ((reason: undefined) => void) | undefined
  /** Undefined while nothing waits, as in most. */
  private queue: Uint8Array<ArrayBuffer>[] | undefined
  private queued = 0
  private isBlocked = false
  private isEnding = false

  private patience: ReturnType<typeof setTimeout> | undefined

  constructor(private readonly source: StreamSource) {}

  pull(controller: ReadableStreamDirectController): Promise<void> {
    this.controller = controller
    this.source.opened(this)
    return new Promise((_, fail) => {
      this.fail = fail
    })
  }

  cancel(): void {
    clearTimeout(this.patience)
    if (this.isEnding) return
    this.close()
    this.source.gone()
  }

  write(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.isBlocked) {
      this.queue ??= []
      this.queue.push(bytes)
    } else this.pass(bytes)
    if (this.isBlocked) this.queued += bytes.length
  }

  waiting(): number {
    return this.queued
  }

  end(): void {
    this.isEnding = true
    if (this.isBlocked) this.patience = setTimeout(() => this.drop(), END_PATIENCE)
    else this.controller?.end()
  }

  drop(): void {
    this.isEnding = true
    this.close()
    // Without a reason, for Bun prints one.
    this.fail?.(undefined)
  }

  private pass(bytes: Uint8Array<ArrayBuffer>): void {
    const taken = this.controller?.write(bytes)
    this.controller?.flush()
    if (!(taken instanceof Promise)) return
    this.isBlocked = true
    void taken.then(() => this.drained())
  }

  private drained(): void {
    const queue = this.queue ?? []
    this.queue = undefined
    this.queued = 0
    this.isBlocked = false
    for (const bytes of queue) this.write(bytes)
    if (!this.isEnding || this.isBlocked) return
    clearTimeout(this.patience)
    this.controller?.end()
  }

  private close(): void {
    this.controller = undefined
    this.queue = undefined
    this.queued = 0
  }
}

export const runtime: Runtime = {
  serve,
  serveHttp: async ({ host, port }, request) => {
    const server = await bindFirst({ host, port }, (hostname, ipv6Only) =>
      Bun.serve({ hostname, port, ipv6Only, fetch: (asked) => request(asked) }),
    )
    return {
      port: server.port ?? port,
      stop: () => {
        void server.stop(true)
      },
    }
  },
  // A stream would be sent in chunks, without Content-Length.
  fileBody: (path, start, end) => Bun.file(path).slice(start, end + 1),
  // This blocks a thread of the pool. Bun.write() would block the program, and Bun.stderr's writer makes a shared pipe non-blocking.
  writeError: (bytes) =>
    new Promise((resolve, reject) => write(2, bytes, (error, length) => (error ? reject(error) : resolve(length)))),
}
