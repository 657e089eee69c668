/** Owns the tests' WebSocket clients: one that reads like a user's, and a bare handshake for what no client shows. */
import { connect as connectSocket } from 'node:net'

export interface Client extends AsyncDisposable {
  send(message: string | Uint8Array): void
  /** The next message, waiting for it. @throws when the connection closes first. */
  next(): Promise<string>
  /** The next some messages. */
  take(count: number): Promise<string[]>
  /** Messages received and not yet taken. */
  readonly waiting: number
  readonly protocol: string
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>
  close(code?: number, reason?: string): Promise<void>
}

/** Opens a connection. @throws when it is refused. */
export function connect(
  url: string,
  options: { protocols?: string[]; headers?: Record<string, string>; ca?: string } = {},
): Promise<Client> {
  const { ca, ...rest } = options
  // Bun's WebSocket takes headers and TLS options beside the subprotocols, which the web's type does not know.
  const socket = new WebSocket(url, { ...rest, ...(ca ? { tls: { ca } } : {}) } as unknown as string[])
  socket.binaryType = 'arraybuffer'
  const received: string[] = []
  const readers: { resolve: (message: string) => void; reject: (error: Error) => void }[] = []
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.onclose = ({ code, reason }) => {
      for (const { reject } of readers.splice(0)) reject(new Error(`closed with ${code} ${reason}`))
      resolve({ code, reason })
    }
  })
  socket.onmessage = ({ data }) => {
    const reader = readers.shift()
    if (reader) reader.resolve(String(data))
    else received.push(String(data))
  }
  const next = (): Promise<string> => {
    const message = received.shift()
    if (message !== undefined) return Promise.resolve(message)
    if (socket.readyState > WebSocket.OPEN) return Promise.reject(new Error('closed'))
    return new Promise((resolve, reject) => readers.push({ resolve, reject }))
  }
  const client: Client = {
    send: (message) => socket.send(message as string),
    next,
    async take(count) {
      const messages: string[] = []
      while (messages.length < count) messages.push(await next())
      return messages
    },
    get waiting() {
      return received.length
    },
    get protocol() {
      return socket.protocol
    },
    closed,
    async close(code, reason) {
      socket.close(code, reason)
      await closed
    },
    async [Symbol.asyncDispose]() {
      socket.close()
      await closed
    },
  }
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(client)
    socket.onerror = () => reject(new Error('the connection failed'))
  })
}

/** The payload of an envelope. */
export const payloadOf = (message: string): string => JSON.parse(message).payload

const latest = new WeakMap<Client, string>()

/**
 * The next payload that is no copy of the one read before: the answer to that may be among what a fault took away, and then it is sent
 * again.
 */
export async function nextNew(client: Client): Promise<string> {
  for (;;) {
    const text = payloadOf(await client.next())
    if (text === latest.get(client)) continue
    latest.set(client, text)
    return text
  }
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: string
}

/** Asks for an upgrade and returns what came back, whole where it was refused. */
export function handshake(port: number, path: string, headers: Record<string, string> = {}): Promise<Answer> {
  const lines = {
    Host: '127.0.0.1',
    Upgrade: 'websocket',
    Connection: 'Upgrade',
    'Sec-WebSocket-Key': key,
    'Sec-WebSocket-Version': '13',
    ...headers,
  }
  return request(port, 'GET', path, lines)
}

const key = 'dGhlIHNhbXBsZSBub25jZQ=='

/** One HTTP request whose path goes out as it is written. */
export function request(
  port: number,
  method: string,
  path: string,
  headers: Record<string, string> = { Host: '127.0.0.1', Connection: 'close' },
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket(port, '127.0.0.1')
    let text = ''
    const finish = (): void => {
      const end = text.indexOf('\r\n\r\n')
      if (end === -1) return
      const [status = '', ...lines] = text.slice(0, end).split('\r\n')
      const found = new Headers(lines.map((line) => line.split(/: ?(.*)/s).slice(0, 2) as [string, string]))
      const body = text.slice(end + 4)
      const length =
        method === 'HEAD' || status.includes(' 304 ') || status.includes(' 101 ')
          ? 0
          : Number(found.get('Content-Length') ?? Infinity)
      if (Buffer.byteLength(body, 'latin1') < length && !socket.readableEnded) return
      socket.destroy()
      resolve({ status: Number(status.split(' ')[1]), headers: found, body: Buffer.from(body, 'latin1').toString() })
    }
    socket.setEncoding('latin1')
    socket.on('data', (chunk) => {
      text += chunk
      finish()
    })
    socket.on('end', finish)
    socket.on('error', reject)
    socket.write(
      `${method} ${path} HTTP/1.1\r\n${Object.entries(headers)
        .map(([name, value]) => `${name}: ${value}\r\n`)
        .join('')}\r\n`,
    )
  })
}

/** A bare WebSocket connection: what is written is on the wire as it is, and what comes is bytes. */
export function rawConnection(
  port: number,
  path: string,
  firstBytes: Uint8Array = new Uint8Array(),
  versionAndHost = 'HTTP/1.1\r\nHost: 127.0.0.1\r\n',
): import('node:net').Socket {
  const socket = connectSocket(port, '127.0.0.1')
  askUpgrade(socket, path, firstBytes, versionAndHost)
  return socket
}

/** Asks for an upgrade on a connection that is open, or about to be. */
export function askUpgrade(
  socket: import('node:net').Socket,
  path: string,
  firstBytes: Uint8Array = new Uint8Array(),
  versionAndHost = 'HTTP/1.1\r\nHost: 127.0.0.1\r\n',
): void {
  const head = `GET ${path} ${versionAndHost}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n\r\n`
  socket.write(Buffer.concat([Buffer.from(head), firstBytes]))
}

/**
 * Hands on each text of a bare connection, whose frames (RFC 6455 section 5.2) come from a server: unmasked, and here whole and
 * below 65,536 bytes.
 */
export function readTexts(socket: import('node:net').Socket, received: (text: string) => void): void {
  let rest = Buffer.alloc(0)
  let isUpgraded = false
  socket.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk])
    if (!isUpgraded) {
      const end = rest.indexOf('\r\n\r\n')
      if (end === -1) return
      isUpgraded = true
      rest = rest.subarray(end + 4)
    }
    for (;;) {
      const short = rest[1] ?? 0
      const head = short === 126 ? 4 : 2
      if (rest.length < head) return
      const length = short === 126 ? rest.readUInt16BE(2) : short
      if (rest.length < head + length) return
      if (rest[0] === 0x81) received(rest.toString('utf8', head, head + length))
      rest = rest.subarray(head + length)
    }
  })
}

/** A client's frame (RFC 6455 section 5.2), masked with zeros, of a payload below 126 bytes. */
export function frame(opcode: number, payload: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | payload.length, 0, 0, 0, 0]), payload])
}
