/** Owns what the program needs of a JavaScript runtime. Types only: `bun.ts` and `deno.ts` each provide it. */

/** One open WebSocket. `D` is what the program keeps with it. */
export interface Socket<D> {
  readonly data: D
  /** Sends a text message to this socket alone. */
  send(text: string): void
  /** What is sent to this socket within the work goes out together. */
  cork(work: () => void): void
  /** From now on this socket gets what is published to the topic. */
  subscribe(topic: string): void
  unsubscribe(topic: string): void
  /** Sends a ping (RFC 6455 section 5.5.2). */
  ping(): void
  /** Bytes that are buffered for this socket in the program. */
  getBufferedAmount(): number
  /** Sends a close frame after everything that is buffered. */
  close(code: number, reason: string): void
  /** Drops the connection without a close frame. */
  terminate(): void
}

/** What a request can be answered with beside a response that is whole. */
export interface Exchange<D> {
  /** Turns a request into a socket with `data`; `headers` go into the answer. False when the request is no valid handshake. */
  upgrade(request: Request, data: D, headers: Headers): boolean
  /** The address that a request's connection comes from, while it is open; empty from then on. */
  address(request: Request): string
  /** Lets a request and its answer take so many seconds. Without it they are cut after some in which nothing moves. */
  hold(request: Request, seconds: number): void
  /** Makes an answer that goes on until it is ended. */
  stream(request: Request, headers: Readonly<Record<string, string>>, source: StreamSource): Response
}

/** Who writes an answer that goes on. */
export interface StreamSource {
  /** Runs before the client can see the answer. */
  opened(sink: Sink): void
  /** The client has gone, maybe before it was opened. Not after `end` or `drop`. */
  gone(): void
}

export interface Sink {
  write(bytes: Uint8Array<ArrayBuffer>): void
  /** Bytes that wait for the client in the program. */
  waiting(): number
  /** Ends the answer behind all that waits. */
  end(): void
  /** Drops the connection. */
  drop(): void
}

export interface Handlers<D> {
  /**
   * Answers a request. After an upgrade the response does not matter.
   *
   * An upgrade in the tick of the request keeps what the client sent in the packet of its handshake.
   */
  readonly request: (request: Request, exchange: Exchange<D>) => Response | Promise<Response>
  /** Runs before the client can see its socket open. */
  readonly open: (socket: Socket<D>) => void
  /** Text as it was sent, or a binary message's bytes. */
  readonly message: (socket: Socket<D>, message: string | Uint8Array) => void
  /** A ping of the client, which the runtime answers. */
  readonly ping: (socket: Socket<D>) => void
  readonly pong: (socket: Socket<D>) => void
  /** The code is that of the close frame, sent or received; 1006 without one. */
  readonly close: (socket: Socket<D>, code: number, reason: string) => void
  /** No connection is accepted for a while, for this reason. Open ones stay. */
  readonly paused: (reason: string) => void
  /** Connections are accepted again. */
  readonly resumed: () => void
}

/** PEM texts. */
export interface Certificate {
  readonly cert: string
  readonly key: string
}

export interface ServeOptions {
  /** An address or name, or one of the forms of `PGWS_HOST`. */
  readonly host: string
  readonly port: number
  readonly tls: Certificate | undefined
  /** Whether other processes may bind the same port. */
  readonly reusePort: boolean
  /** A longer message closes its connection with 1009. */
  readonly messageBytes: number
}

export interface RunningServer {
  readonly port: number
  /** Sends a text message to every socket that is subscribed to the topic. */
  publish(topic: string, text: string): void
  /**
   * Uses another certificate for new connections. Open ones stay. Does nothing after `stopAccepting`. Rejects when the port is lost
   * meanwhile.
   */
  renewCertificate(tls: Certificate): Promise<void>
  /** Accepts no further connection. */
  stopAccepting(): void
  /**
   * Resolves when the clients that were closed have hung up, or after `patience` milliseconds. Dropping a connection sooner, with data of
   * its client unread, may discard the close frame before the client has read it (RFC 6455 section 7.1.1).
   */
  hungUp(patience: number): Promise<void>
  /** Drops every connection. */
  stop(): void
}

/** Resolves once the port is bound. */
export type Serve = <D>(options: ServeOptions, handlers: Handlers<D>) => Promise<RunningServer>

/** Serves plain HTTP, without WebSockets, for the admin port. */
export type ServeHttp = (
  options: Pick<ServeOptions, 'host' | 'port'>,
  request: (request: Request) => Response | Promise<Response>,
) => Promise<Pick<RunningServer, 'port' | 'stop'>>

/** The bytes of a file from `start` to `end`, both included, as a response's body whose length the runtime knows. */
export type FileBody = (path: string, start: number, end: number) => BodyInit

/**
 * Writes to standard error without blocking the program while nobody reads it. One write at a time.
 *
 * @returns how many of the bytes were taken, once there was room. Rejects when nothing can be written.
 */
export type WriteError = (bytes: Uint8Array) => Promise<number>

/** What the program takes from its runtime. */
export interface Runtime {
  readonly serve: Serve
  readonly serveHttp: ServeHttp
  readonly fileBody: FileBody
  readonly writeError: WriteError
}
