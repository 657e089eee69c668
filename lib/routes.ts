/** Owns what a request is answered: an upgrade, a file, or a refusal. Flat guards, each to one refusal. */
import { type Context, Hono } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { getMimeType } from 'hono/utils/mime'
import { type Claims, grant, type Policy } from './grant.ts'
import type { Keyring } from './keyring.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { isRefusal, type Refusal, type RefusalCode, refusals } from './refusal.ts'
import type { FileBody, Upgrade } from './runtime/contract.ts'
import type { Session, Sessions } from './session.ts'
import { createStaticFiles } from './static.ts'

export interface RoutesOptions {
  readonly keyring: Keyring
  readonly policy: Policy
  readonly allowedOrigins: readonly string[] | undefined
  readonly maxConnections: number
  readonly rootPath: string | undefined
  readonly fileBody: FileBody
  readonly sessions: Sessions
  readonly metrics: Metrics
  readonly log: Log
  /** `postgres-websockets/VERSION` */
  readonly product: string
  /** Whether upgrades are taken now. */
  readonly admission: () => 'NOT_READY' | 'SHUTTING_DOWN' | undefined
}

interface Bindings {
  readonly upgrade: Upgrade<Session>
}

export type Routes = (request: Request, bindings: Bindings) => Response | Promise<Response>

export function createRoutes(options: RoutesOptions): Routes {
  const { keyring, policy, allowedOrigins, rootPath, fileBody, sessions, metrics, log, product, admission } = options
  // One route takes every path, so that none need be looked for in the URL.
  const app = new Hono<{ Bindings: Bindings }>({ getPath: () => '/' })
  /** What an upgrade is answered with, but for another subprotocol; made once, for most clients ask for one of the two. */
  const upgradeHeaders = { none: protocolHeaders(undefined), pgws: protocolHeaders('pgws') }
  const upgraded = new Response(null)
  const files = rootPath === undefined ? undefined : createStaticFiles(rootPath, getMimeType, fileBody)

  app.all('*', (context) => (isUpgrade(context.req.raw) ? upgrade(context) : serve(context)))

  app.onError((error, context) => {
    log.error('request failed', { reason: error.message })
    return answer(context, 'INTERNAL')
  })

  /**
   * Answers in the tick of the request wherever it can, for the runtime refuses a client that sends frames before its upgrade; what
   * must wait is a key set that is fetched first, and a database channel that is not listened to yet.
   */
  function upgrade(context: Context<{ Bindings: Bindings }>): Response | Promise<Response> {
    const { headers, url } = context.req.raw
    const closed = admission()
    if (closed) return reject(context, closed)
    const origin = headers.get('Origin')
    if (origin !== null && allowedOrigins && !allowedOrigins.includes(origin)) return reject(context, 'ORIGIN_NOT_ALLOWED')
    const offer = readOffer(headers)
    const { asked, token } = readAsked(readPath(url), offer.token ?? bearerToken(headers))
    if (token === undefined) return reject(context, 'TOKEN_MISSING')
    // Bun would select the first offer itself, and so echo a token.
    if (offer.token !== undefined && offer.selected === undefined) return reject(context, 'PROTOCOL_MISSING')
    const verified = keyring.verify(token)
    return verified instanceof Promise
      ? verified.then((claims) => admit(context, claims, asked, offer.selected))
      : admit(context, verified, asked, offer.selected)
  }

  function admit(
    context: Context<{ Bindings: Bindings }>,
    claims: Claims | Refusal,
    asked: string | undefined,
    protocol: string | undefined,
  ): Response | Promise<Response> {
    if (isRefusal(claims)) return reject(context, claims.refused)
    const allowed = grant(claims, asked, Date.now(), policy)
    if (isRefusal(allowed)) return reject(context, allowed.refused)
    if (sessions.count >= options.maxConnections) return reject(context, 'TOO_MANY_CONNECTIONS')
    const { session, ready } = sessions.create(allowed, protocol === 'pgws')
    return ready !== undefined ? ready.then(() => accept(context, session, protocol)) : accept(context, session, protocol)
  }

  function accept(context: Context<{ Bindings: Bindings }>, session: Session, protocol: string | undefined): Response {
    const headers =
      protocol === undefined ? upgradeHeaders.none : protocol === 'pgws' ? upgradeHeaders.pgws : protocolHeaders(protocol)
    // It may have waited, and the server have begun to shut down meanwhile.
    const closed = admission()
    if (!closed && context.env.upgrade(context.req.raw, session, headers)) return upgraded
    sessions.discard(session)
    return reject(context, closed ?? 'HANDSHAKE_MALFORMED')
  }

  function reject(context: Context, code: RefusalCode): Response {
    metrics.refused.add(code.toLowerCase())
    log.info('upgrade refused', { status: refusals[code].status, reason: refusals[code].reason })
    return answer(context, code)
  }

  async function serve(context: Context): Promise<Response> {
    if (!files) return plain(context, `${product}\nThis is a WebSocket server: connect to /CHANNEL/TOKEN or /TOKEN.\n`, 200)
    const answered = await files.answer(context.req.raw, readPath(context.req.raw.url))
    if (isRefusal(answered)) return answer(context, answered.refused)
    answered.headers.set('Server', product)
    return answered
  }

  function answer(context: Context, code: RefusalCode): Response {
    const { status, reason } = refusals[code]
    if (status === 503) context.header('Retry-After', '1')
    if (status === 401) context.header('WWW-Authenticate', 'Bearer')
    if (status === 405) context.header('Allow', 'GET, HEAD')
    context.header('X-Content-Type-Options', 'nosniff')
    return plain(context, reason, status)
  }

  const plain = (context: Context, text: string, status: ContentfulStatusCode): Response =>
    context.text(text, status, { 'Content-Type': 'text/plain; charset=UTF-8', Server: product })

  function protocolHeaders(protocol: string | undefined): Headers {
    return new Headers({ Server: product, ...(protocol === undefined ? {} : { 'Sec-WebSocket-Protocol': protocol }) })
  }

  return (request, bindings) => app.fetch(request, bindings)
}

const isUpgrade = (request: Request): boolean => request.headers.get('Upgrade')?.toLowerCase() === 'websocket'

/** The path as it stands in the URL, for a channel's name is compared with its segment before that is decoded. */
function readPath(url: string): string {
  const start = url.indexOf('/', url.indexOf('://') + 3)
  return start === -1 ? '/' : (/^[^?#]*/.exec(url.slice(start))?.[0] ?? '/')
}

/** What a token looks like: three parts of base64url (RFC 7515 section 7.1). */
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]*$/

/**
 * `/CHANNEL/TOKEN` or `/TOKEN`, and with a token from elsewhere `/CHANNEL` or `/`. Further segments are ignored; a token in the
 * path wins.
 */
function readAsked(path: string, otherToken: string | undefined): { asked: string | undefined; token: string | undefined } {
  const [first, second] = path.split('/').filter((segment) => segment !== '')
  if (second !== undefined && (TOKEN.test(second) || otherToken === undefined)) return { asked: first, token: second }
  if (first !== undefined && second === undefined && TOKEN.test(first)) return { asked: undefined, token: first }
  return otherToken === undefined ? { asked: undefined, token: first } : { asked: first, token: otherToken }
}

/** A scheme other than Bearer is somebody else's, a proxy's say. */
function bearerToken(headers: Headers): string | undefined {
  return /^bearer +(\S+)$/i.exec(headers.get('Authorization') ?? '')?.[1]
}

/** The subprotocol that carries a token behind its name, for browsers can set no header. */
const TOKEN_PROTOCOL = 'pgws.token.'

/**
 * What the offered subprotocols mean. `pgws` is selected where it is offered, else the first that is no token: a browser ends a
 * connection of which it offered some and none was selected.
 */
function readOffer(headers: Headers): { selected: string | undefined; token: string | undefined } {
  const offers = (headers.get('Sec-WebSocket-Protocol') ?? '').split(',').map((name) => name.trim())
  const names = offers.filter((name) => name !== '' && !name.startsWith(TOKEN_PROTOCOL))
  const token = offers.find((name) => name.startsWith(TOKEN_PROTOCOL))?.slice(TOKEN_PROTOCOL.length)
  return { selected: names.includes('pgws') ? 'pgws' : names[0], token }
}
