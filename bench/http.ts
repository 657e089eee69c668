/** Owns the bench's clients without WebSockets that cost little: event streams that count events, and posts of one after another. */
import type { Socket } from 'bun'
import type { Crowd } from '../test/support/crowd.ts'

const DATA = Buffer.from('\ndata: ')

/** @returns how often the mark ends in what was read; `rest` is what may be the beginning of another. */
function count(bytes: Buffer, mark: Buffer): { times: number; rest: Buffer } {
  let times = 0
  let at = 0
  for (let found = bytes.indexOf(mark); found !== -1; found = bytes.indexOf(mark, at)) {
    times++
    at = found + mark.length
  }
  return { times, rest: Buffer.from(bytes.subarray(Math.max(at, bytes.length - mark.length + 1))) }
}

/** One connection for each path. `request` is sent when it opens, `received` is told how many of the mark arrived. */
async function connectAll(
  port: number,
  requests: readonly string[],
  mark: Buffer,
  received: (socket: Socket<{ rest: Buffer }>, times: number, client: number) => void,
): Promise<readonly Socket<{ rest: Buffer }>[]> {
  const open = (request: string, client: number): Promise<Socket<{ rest: Buffer }>> =>
    Bun.connect<{ rest: Buffer }>({
      hostname: '127.0.0.1',
      port,
      data: { rest: Buffer.alloc(0) },
      socket: {
        open: (socket) => void socket.write(request),
        data(socket, chunk) {
          const { times, rest } = count(Buffer.concat([socket.data.rest, chunk]), mark)
          socket.data.rest = rest
          if (times > 0) received(socket, times, client)
        },
      },
    })
  const sockets: Socket<{ rest: Buffer }>[] = []
  const AT_ONCE = 500
  for (let from = 0; from < requests.length; from += AT_ONCE)
    sockets.push(
      ...(await Promise.all(requests.slice(from, from + AT_ONCE).map((request, index) => open(request, from + index)))),
    )
  return sockets
}

const end = async (sockets: readonly Pick<Socket, 'end'>[]): Promise<void> => {
  for (const socket of sockets) socket.end()
}

/** Event streams, which are open once each has said when to come again. */
export async function openStreams(port: number, paths: readonly string[]): Promise<Pick<Crowd, 'expect' | 'close'>> {
  let seen = 0
  let wanted = Number.POSITIVE_INFINITY
  let reached = (): void => undefined
  const ask = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n`
  const wait = (times: number): Promise<void> =>
    new Promise((resolve) => {
      reached = resolve
      wanted = seen + times
      if (seen >= wanted) resolve()
    })
  // The first line of data follows another line, if only that of a piece's length.
  const sockets = await connectAll(port, paths.map(ask), DATA, (_, times) => {
    seen += times
    if (seen >= wanted) reached()
  })
  await Bun.sleep(300)
  return { expect: wait, close: () => end(sockets) }
}

/** Clients of which each posts its next message when the last was answered. */
export async function openPosters(
  port: number,
  paths: readonly string[],
): Promise<{ post(each: number): Promise<void>; close(): Promise<void> }> {
  const body = 'message of a client'
  const request = (path: string): string => `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`
  const requests = paths.map(request)
  let left: number[] = []
  let unanswered = 0
  let done = (): void => undefined
  const sockets = await connectAll(
    port,
    paths.map(() => ''),
    Buffer.from('HTTP/1.1 204'),
    (socket, _, client) => {
      if (--unanswered === 0) return done()
      const more = (left[client] ?? 0) - 1
      left[client] = more
      if (more > 0) socket.write(requests[client] ?? '')
    },
  )
  return {
    post: (each) =>
      new Promise((resolve) => {
        done = resolve
        left = paths.map(() => each)
        unanswered = each * paths.length
        for (const [client, socket] of sockets.entries()) socket.write(requests[client] ?? '')
      }),
    close: () => end(sockets),
  }
}
