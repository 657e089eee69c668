/** Owns the web's requests and responses over Node.js' HTTP server, for a runtime that has that. */
import { type IncomingMessage, type RequestListener, type ServerResponse, STATUS_CODES } from 'node:http'
import { type Duplex, Readable, type Writable } from 'node:stream'

export type Answer = (request: Request, source: IncomingMessage) => Response | Promise<Response>

/** A request that cannot be read as one of the web's ends its connection. */
export const listener =
  (answer: Answer, isSecure: boolean): RequestListener =>
  (request, response) => {
    respond(request, response, answer, isSecure).catch(() => response.destroy())
  }

/** Writes the response to the connection of a request for an upgrade, for which Node.js has no response. */
export async function respondBare(connection: Duplex, answered: Response): Promise<void> {
  const text = isFile(answered) ? undefined : Buffer.from(await answered.arrayBuffer())
  const headers = {
    ...(text ? { 'content-length': text.length } : {}),
    ...Object.fromEntries(answered.headers),
    connection: 'close',
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  connection.write(`HTTP/1.1 ${answered.status} ${STATUS_CODES[answered.status]}\r\n${lines.join('')}\r\n`)
  if (text) connection.end(text)
  else sendFile(answered, connection)
}

export const webRequest = (request: IncomingMessage, isSecure: boolean): Request => {
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

export const peerAddressOf = ({ socket }: IncomingMessage): string => socket.remoteAddress ?? ''

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

/** A file has a length and is sent while it is read. Every other body is short. */
const isFile = ({ headers, body }: Response): boolean => body !== null && headers.has('Content-Length')

function sendFile({ body }: Response, target: Writable): void {
  // Node.js has a type of its own for the web's streams.
  const stream = Readable.fromWeb(body as unknown as Parameters<typeof Readable.fromWeb>[0])
  stream.on('error', () => target.destroy()).pipe(target)
  target.on('close', () => stream.destroy())
}
