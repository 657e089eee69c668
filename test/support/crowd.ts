/** Owns clients that cost little: raw sockets that count frames, and write frames made once. */
import type { Socket } from 'bun'

export interface Crowd {
  /** Text frames that have arrived so far. */
  readonly frames: number
  /** Resolves when so many text frames have arrived since the last `expect`, at all clients together. */
  expect(frames: number): Promise<void>
  /** Sends a text frame from one client, some times over. */
  write(client: number, text: string, times: number): void
  close(): Promise<void>
}

interface State {
  rest: Buffer
  isOpen: boolean
}

const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='

/**
 * Opens a connection for each path, some hundred at a time; resolves when all are open.
 *
 * @param protocol the subprotocol that they offer.
 */
export async function openCrowd(port: number, paths: readonly string[], atOnce = 500, protocol?: string): Promise<Crowd> {
  const offer = protocol === undefined ? '' : `Sec-WebSocket-Protocol: ${protocol}\r\n`
  let count = 0
  let wanted = Number.POSITIVE_INFINITY
  let reached = (): void => undefined
  const sockets: Socket<State>[] = []
  let closed = 0
  let allClosed = (): void => undefined

  const open = (path: string): Promise<void> =>
    new Promise((resolve, reject) => {
      void Bun.connect<State>({
        hostname: '127.0.0.1',
        port,
        data: { rest: Buffer.alloc(0), isOpen: false },
        socket: {
          open(socket) {
            sockets.push(socket)
            socket.write(
              `GET ${path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${KEY}\r\nSec-WebSocket-Version: 13\r\n${offer}\r\n`,
            )
          },
          data(socket, chunk) {
            const { data } = socket
            let bytes = data.rest.length === 0 ? chunk : Buffer.concat([data.rest, chunk])
            if (!data.isOpen) {
              const end = bytes.indexOf('\r\n\r\n')
              if (end === -1) return
              if (!bytes.subarray(0, 12).toString().endsWith('101')) return reject(new Error(bytes.toString('latin1', 0, 200)))
              data.isOpen = true
              bytes = bytes.subarray(end + 4)
              resolve()
            }
            data.rest = countFrames(bytes)
          },
          close() {
            if (++closed === paths.length) allClosed()
          },
        },
      }).catch(reject)
    })

  /** Counts whole text frames and returns what is left of the last. */
  function countFrames(bytes: Buffer): Buffer {
    let at = 0
    while (at + 2 <= bytes.length) {
      let length = bytes[at + 1] ?? 0
      let head = 2
      if (length === 126) {
        if (at + 4 > bytes.length) break
        length = bytes.readUInt16BE(at + 2)
        head = 4
      } else if (length === 127) throw new Error('a longer frame than any that is sent')
      if (at + head + length > bytes.length) break
      if (bytes[at] === 0x81) count++
      at += head + length
    }
    if (count >= wanted) {
      wanted = Number.POSITIVE_INFINITY
      reached()
    }
    return at === 0 ? bytes : Buffer.from(bytes.subarray(at))
  }

  for (let index = 0; index < paths.length; index += atOnce) await Promise.all(paths.slice(index, index + atOnce).map(open))
  return {
    get frames() {
      return count
    },
    expect(frames) {
      return new Promise((resolve) => {
        reached = resolve
        wanted = frames
        const begun = count
        wanted += begun
      })
    },
    write(client, text, times) {
      const payload = Buffer.from(text)
      const frame = Buffer.concat([Buffer.from([0x81, 0x80 | payload.length, 0, 0, 0, 0]), payload])
      sockets[client]?.write(Buffer.concat(Array<Buffer>(times).fill(frame)))
    },
    close() {
      return new Promise((resolve) => {
        if (closed === paths.length) return resolve()
        allClosed = resolve
        for (const socket of sockets) socket.end()
      })
    },
  }
}
