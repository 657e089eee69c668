/** Owns the web's requests and responses over Node.js' HTTP server, for a runtime that has that. */
import { type IncomingMessage, type RequestListener, type ServerResponse, STATUS_CODES } from 'node:http'
import { type Duplex, Readable, type Writable } from 'node:stream'
import type { Exchange, Sink, StreamSource } from './contract.ts'

export type Answer = (request: Request, source: IncomingMessage) => Response | Promise<Response>

/** A request that cannot be read as one of the web's ends its connection. */
export const listener =
  (answer: Answer, isSecure: boolean): RequestListener =>
  (request, response) => {
    respond(request, response, answer, isSecure).catch(() => response.destroy())
  }

/** Writes the response to the connection of a request for an upgrade, for which Node.js has no response. */
export async function respondBare(connection: Duplex, answered: Response): Promise<void> {
  const source = sources.get(answered)
  const text = source || isFile(answered) ? undefined : Buffer.from(await answered.arrayBuffer())
  const headers = {
    ...(text ? { 'content-length': text.length } : {}),
    ...Object.fromEntries(answered.headers),
    connection: 'close',
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  connection.write(`HTTP/1.1 ${answered.status} ${STATUS_CODES[answered.status]}\r\n${lines.join('')}\r\n`)
  if (source) openStream(source, connection)
  else if (text) connection.end(text)
  else sendFile(answered, connection)
}

export const webRequest = (request: IncomingMessage, isSecure: boolean): Request => {
  const headers = new Headers()
  for (let index = 0; index + 1 < request.rawHeaders.length; index += 2) {
    headers.append(request.rawHeaders[index] ?? '', request.rawHeaders[index + 1] ?? '')
  }
  const { method = 'GET', url = '/' } = request
  const path = url.startsWith('/') ? url : '/'
  return new Request(`${isSecure ? 'https' : 'http'}://${request.headers.host || 'localhost'}${path}`, {
    method: /^(CONNECT|TRACE|TRACK)$/i.test(method) ? 'OPTIONS' : method,
    headers,
    // Node.js has a type of its own for the web's streams, and asks for the way in which a body is sent.
    ...(method === 'POST' ? ({ body: Readable.toWeb(request), duplex: 'half' } as unknown as RequestInit) : {}),
  })
}

/** Answers that go on. */
const sources = new WeakMap<Response, StreamSource>()

/** What a request can be answered with. Nothing cuts one whose answer takes long. */
export const exchangeOf = <D>({ socket }: IncomingMessage, upgrade: Exchange<D>['upgrade']): Exchange<D> => ({
  upgrade,
  address: () => socket.remoteAddress ?? '',
  hold: () => undefined,
  stream(_, headers, source) {
    const answer = new Response(null, { headers })
    sources.set(answer, source)
    return answer
  },
})

async function respond(request: IncomingMessage, response: ServerResponse, answer: Answer, isSecure: boolean): Promise<void> {
  if (request.method !== 'POST') request.resume()
  const answered = await answer(webRequest(request, isSecure), request)
  const headers = Object.fromEntries(answered.headers)
  // What is left of its body would be taken for the next request.
  if (request.method === 'POST' && !request.complete) headers.connection = 'close'
  const source = sources.get(answered)
  if (source) {
    response.writeHead(answered.status, headers)
    return openStream(source, response)
  }
  if (isFile(answered)) {
    response.writeHead(answered.status, headers)
    return sendFile(answered, response)
  }
  const text = Buffer.from(await answered.arrayBuffer())
  response.writeHead(answered.status, { 'content-length': text.length, ...headers })
  response.end(text)
}

/** A file has a length and is sent while it is read. Every other body is short. */
const isFile = ({ headers, body }: Response): boolean => body !== null && headers.has('Content-Length')

function sendFile({ body }: Response, target: Writable): void {
  // Node.js has a type of its own for the web's streams.
  const stream = Readable.fromWeb(body as unknown as Parameters<typeof Readable.fromWeb>[0])
  stream.on('error', () => target.destroy()).pipe(target)
  target.on('close', () => stream.destroy())
}

/** Milliseconds that an answer which has ended gets to be read to its end. */
const END_PATIENCE = 10_000

/** Deno passes on only later what it is told to write: so many bytes, and all for so many milliseconds, do not wait for the client yet. */
const UNDER_WAY = 262_144
const PASSED_ON = 10

/** Answers that have ended, until their clients have taken them whole. */
const ending = new Set<Promise<void>>()

export const endedStreams = async (): Promise<void> => void (await Promise.all(ending))

function openStream(source: StreamSource, target: Writable): void {
  let isOver = false
  /** What was left a while behind its writing. */
  let waiting = 0
  let isLooking = false
  const look = (): void => {
    isLooking = false
    waiting = target.writableLength
  }
  const sink: Sink = {
    write(bytes) {
      target.write(bytes)
      if (isLooking) return
      isLooking = true
      setTimeout(look, PASSED_ON)
    },
    waiting: () => Math.max(Math.min(waiting, target.writableLength), target.writableLength - UNDER_WAY),
    end() {
      isOver = true
      target.end()
      const timer = setTimeout(() => target.destroy(), END_PATIENCE)
      const closed = new Promise<void>((resolve) => target.on('close', resolve)).then(() => {
        clearTimeout(timer)
        ending.delete(closed)
      })
      ending.add(closed)
    },
    drop() {
      isOver = true
      target.destroy()
    },
  }
  const gone = (): void => {
    if (!isOver) source.gone()
    isOver = true
  }
  if (target.destroyed) return gone()
  target.on('close', gone)
  source.opened(sink)
}
