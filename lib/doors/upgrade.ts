/** Owns which requests become sessions: where a token and a channel stand in one, and flat guards, each to one refusal. */

import type { Authenticator } from '../access/authenticator.ts'
import { grant, type Permit } from '../access/grant.ts'
import type { Session, Sessions } from '../channels/session.ts'
import type { Network } from '../config/networks.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { isRefusal, type Refusal, type RefusalCode, refusalAnswer, refusals } from '../refusal.ts'
import type { Handlers, Upgrade } from '../runtime/contract.ts'
import { shown, shownPath } from '../shown.ts'
import { clientAddress } from './client-address.ts'
import { createRefusalLog } from './refusal-log.ts'
import type { Protocols } from './websocket.ts'

export interface UpgradesOptions {
  readonly authenticator: Authenticator
  readonly allowedOrigins: readonly string[] | undefined
  readonly maxConnections: number
  /** Whose `X-Forwarded-For` counts. */
  readonly trustedProxies: readonly Network[]
  readonly sessions: Sessions
  readonly protocols: Protocols
  readonly metrics: Metrics
  readonly log: Log
  /** `postgres-websockets/VERSION` */
  readonly product: string
  /** Whether upgrades are taken now. */
  readonly admission: () => 'NOT_READY' | 'SHUTTING_DOWN' | undefined
}

/** A request, and what was read in it. */
interface Attempt {
  readonly request: Request
  readonly upgrade: Upgrade<Session>
  /** Where the client comes from. */
  readonly address: string
  /** The channel's path segment; undefined asks for all that the token names. */
  readonly asked: string | undefined
  readonly token: string | undefined
  readonly offer: Offer
}

export const isUpgrade = (request: Request): boolean => request.headers.get('Upgrade')?.toLowerCase() === 'websocket'

/**
 * Answers in the tick of the request wherever it can, for the runtime refuses a client that sends frames before its upgrade; what
 * must wait is a key set that is fetched first, and a database channel that is not listened to yet.
 */
export function createUpgrades(options: UpgradesOptions): Handlers<Session>['request'] {
  const { authenticator, allowedOrigins, trustedProxies, sessions, protocols, metrics, log, product, admission } = options
  /** What an upgrade is answered with, but for another subprotocol; made once, for most clients ask for one of the two. */
  const upgradeHeaders = { none: protocolHeaders(undefined), pgws: protocolHeaders('pgws') }
  const upgraded = new Response(null)
  const logRefusal = createRefusalLog(log)

  function admit(attempt: Attempt, permit: Permit | Refusal): Response | Promise<Response> {
    if (isRefusal(permit)) return reject(attempt, permit.refused)
    const allowed = grant(permit, attempt.asked, Date.now())
    if (isRefusal(allowed)) return reject(attempt, allowed.refused)
    if (sessions.count >= options.maxConnections) return reject(attempt, 'TOO_MANY_CONNECTIONS')
    const { session, ready } = sessions.create(
      allowed,
      attempt.offer.selected === 'pgws' ? protocols.pgws : protocols.plain,
      attempt.address,
    )
    if (ready === undefined) return accept(attempt, session)
    return ready.then((channels) => {
      const refusal = channels.find((channel) => channel !== undefined)
      if (refusal === undefined) return accept(attempt, session)
      sessions.discard(session)
      return reject(attempt, refusal.refused)
    })
  }

  function accept(attempt: Attempt, session: Session): Response {
    const protocol = attempt.offer.selected
    const headers =
      protocol === undefined ? upgradeHeaders.none : protocol === 'pgws' ? upgradeHeaders.pgws : protocolHeaders(protocol)
    // It may have waited, and the server have begun to shut down meanwhile.
    const closed = admission()
    if (!closed && attempt.upgrade(attempt.request, session, headers)) return upgraded
    sessions.discard(session)
    return reject(attempt, closed ?? 'HANDSHAKE_MALFORMED')
  }

  function reject({ request, address, asked, token }: Attempt, code: RefusalCode): Response {
    metrics.refused.add(code.toLowerCase())
    const { status, reason } = refusals[code]
    const channel = asked === undefined ? {} : { channel: shown(asked) }
    logRefusal(() => ({ status, reason, address, ...channel, path: shownPath(readPath(request.url), token) }))
    return refusalAnswer(code, product)
  }

  function protocolHeaders(protocol: string | undefined): Headers {
    return new Headers({ Server: product, ...(protocol === undefined ? {} : { 'Sec-WebSocket-Protocol': protocol }) })
  }

  return (request, upgrade, peerAddress) => {
    const { headers } = request
    const forwarded = trustedProxies.length === 0 ? null : headers.get('X-Forwarded-For')
    const address = clientAddress(peerAddress(request), forwarded, trustedProxies)
    const attempt = { request, upgrade, address, ...readCredentials(request) }
    const { token, offer } = attempt
    const closed = admission()
    if (closed) return reject(attempt, closed)
    if (!isHandshake(headers)) return reject(attempt, 'HANDSHAKE_MALFORMED')
    const origin = headers.get('Origin')
    if (origin !== null && allowedOrigins && !allowedOrigins.includes(origin)) return reject(attempt, 'ORIGIN_NOT_ALLOWED')
    if (token === undefined) return reject(attempt, 'TOKEN_MISSING')
    // Bun would select the first offer itself, and so echo a token.
    if (offer.token !== undefined && offer.selected === undefined) return reject(attempt, 'PROTOCOL_MISSING')
    const permit = authenticator.verify(token)
    return permit instanceof Promise ? permit.then((verified) => admit(attempt, verified)) : admit(attempt, permit)
  }
}

/**
 * What RFC 6455 section 4.2.1 asks of a request beyond what the runtime looks at. No host is how HTTP/1.0 shows, whose requests need
 * none; one that names its host cannot be told from a later one on Bun.
 */
const isHandshake = (headers: Headers): boolean =>
  headers.has('Host') && /(^|,)[ \t]*upgrade[ \t]*(,|$)/i.test(headers.get('Connection') ?? '')

/** The path as it stands in the URL, for a channel's name is compared with its segment before that is decoded. */
export function readPath(url: string): string {
  const start = url.indexOf('/', url.indexOf('://') + 3)
  return start === -1 ? '/' : (/^[^?#]*/.exec(url.slice(start))?.[0] ?? '/')
}

function readCredentials({ headers, url }: Request): Pick<Attempt, 'asked' | 'token' | 'offer'> {
  const offered = headers.get('Sec-WebSocket-Protocol')
  const offer = offered === null ? NO_OFFER : readOffer(offered)
  const authorization = headers.get('Authorization')
  const bearer = authorization === null ? undefined : bearerToken(authorization)
  return { ...readAsked(readPath(url), offer.token ?? bearer), offer }
}

/** What a token looks like: three parts of base64url (RFC 7515 section 7.1). */
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]*$/

/**
 * `/CHANNEL/TOKEN` or `/TOKEN`, and with a token from elsewhere `/CHANNEL` or `/`. Further segments are ignored; a token in the
 * path wins.
 */
function readAsked(path: string, otherToken: string | undefined): { asked: string | undefined; token: string | undefined } {
  const [, first, second] = /^\/*([^/]+)?\/*([^/]+)?/.exec(path) ?? []
  if (second !== undefined && (TOKEN.test(second) || otherToken === undefined)) return { asked: first, token: second }
  if (first !== undefined && second === undefined && TOKEN.test(first)) return { asked: undefined, token: first }
  return otherToken === undefined ? { asked: undefined, token: first } : { asked: first, token: otherToken }
}

/** A scheme other than Bearer is somebody else's, a proxy's say. */
const bearerToken = (header: string): string | undefined => /^bearer +(\S+)$/i.exec(header)?.[1]

/** The subprotocol that carries a token behind its name, for browsers can set no header. */
const TOKEN_PROTOCOL = 'pgws.token.'

interface Offer {
  /** The subprotocol that is selected. */
  readonly selected: string | undefined
  readonly token: string | undefined
}

const NO_OFFER: Offer = { selected: undefined, token: undefined }

/**
 * What the offered subprotocols mean. `pgws` is selected where it is offered, else the first that is no token: a browser ends a
 * connection of which it offered some and none was selected.
 */
function readOffer(header: string): Offer {
  const offers = header.split(',').map((name) => name.trim())
  const names = offers.filter((name) => name !== '' && !name.startsWith(TOKEN_PROTOCOL))
  const token = offers.find((name) => name.startsWith(TOKEN_PROTOCOL))?.slice(TOKEN_PROTOCOL.length)
  return { selected: names.includes('pgws') ? 'pgws' : names[0], token }
}
