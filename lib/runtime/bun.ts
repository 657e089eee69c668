/** Owns the program's contract with its runtime, on Bun. */
import type { FileBody, Handlers, RunningServer, ServeOptions, Upgrade } from './contract.ts'

/** Where each form of `PGWS_HOST` binds: the first address that the machine has. */
const forms: Readonly<Record<string, readonly string[]>> = {
  '*': ['::', '0.0.0.0'],
  '*4': ['0.0.0.0', '::'],
  '!4': ['0.0.0.0'],
  '*6': ['::', '0.0.0.0'],
  '!6': ['::'],
}

export function serve<D>(options: ServeOptions, handlers: Handlers<D>): RunningServer {
  const hosts = forms[options.host] ?? [options.host]
  let fault: unknown
  for (const host of hosts) {
    try {
      // A socket's data is what upgrade() was given, which is a D.
      return bind(host, options, handlers as Handlers<unknown>)
    } catch (error) {
      fault = error
      // Only a missing address family makes the next one better.
      if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') break
    }
  }
  throw fault
}

function bind(hostname: string, options: ServeOptions, handlers: Handlers<unknown>): RunningServer {
  const server = Bun.serve<unknown>({
    hostname,
    port: options.port,
    ipv6Only: options.host === '!6',
    ...(options.tls ? { tls: options.tls } : {}),
    fetch: (request) => handlers.request(request, upgrade),
    websocket: {
      open: handlers.open,
      message: handlers.message,
      pong: handlers.pong,
      close: handlers.close,
      backpressureLimit: options.sendBufferBytes,
      // publish() skips a socket over its limit without a word: closing it is what keeps a reader from a gap.
      closeOnBackpressureLimit: true,
      maxPayloadLength: options.messageBytes,
      // Bun pings only idle sockets: the program pings all of them itself.
      idleTimeout: 0,
      sendPings: false,
      perMessageDeflate: false,
    },
  })
  const upgrade: Upgrade<unknown> = (request, data, headers) => server.upgrade(request, { data, headers })
  return {
    port: server.port ?? options.port,
    publish: (topic, text) => {
      server.publish(topic, text)
    },
    stopAccepting: () => {
      void server.stop(false)
    },
    stop: () => {
      void server.stop(true)
    },
  }
}

/** A stream would go out in chunks, without its length. */
export const fileBody: FileBody = (path, start, end) => Bun.file(path).slice(start, end + 1)
