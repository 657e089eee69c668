/** Owns who is let in, at every door: where the token and the channel are in a request, and the checks that refuse it. */

import type { Authenticator } from '../access/authenticator.ts'
import { type Grant, grant, narrowed, type Permit, readable } from '../access/grant.ts'
import type { Authority } from '../channels/authority.ts'
import { createBeginnings, isBeginning } from '../channels/beginning.ts'
import type { History } from '../channels/broker.ts'
import type { Protocol } from '../channels/client.ts'
import type { Beginning } from '../channels/reading.ts'
import type { Session, Sessions } from '../channels/session.ts'
import type { Network } from '../config/networks.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { isRefusal, type Refusal, type RefusalCode, refusalAnswer, refusals, refuse } from '../refusal.ts'
import { shown, shownPath } from '../shown.ts'
import { inTick } from '../waiting.ts'
import { readAskedOfHistory } from './beginning.ts'
import { clientAddress } from './client-address.ts'
import { createRefusalLog, type Door } from './refusal-log.ts'
import { readPath } from './target.ts'

export interface AdmissionOptions {
  readonly authenticator: Authenticator
  /** Undefined where only tokens decide. */
  readonly authority: Authority | undefined
  readonly allowedOrigins: readonly string[] | undefined
  readonly maxConnections: number
  /** The proxies whose `X-Forwarded-For` counts. */
  readonly trustedProxies: readonly Network[]
  readonly sessions: Sessions
  /** Of one client that is told of them. */
  readonly maxSubscriptions: number
  /** What readers may resume from; undefined where nothing is kept. */
  readonly history: History | undefined
  readonly metrics: Metrics
  readonly log: Log
  /** `postgres-websockets/VERSION` */
  readonly product: string
  /** Whether anybody is let in now. */
  readonly admission: () => 'NOT_READY' | 'SHUTTING_DOWN' | undefined
}

/** A request, and what was read in it. */
export interface Attempt {
  readonly request: Request
  /** Where the client comes from. */
  readonly address: string
  /** The channel's path segment; undefined asks for all that the token names. */
  readonly asked: string | undefined
  readonly token: string | undefined
  readonly door: Door
}

/** What the doors share. Whatever need not wait is answered at once, not by a promise. */
export interface Admission {
  /** @param peer the address that the connection comes from. @param otherToken one that came in neither path nor header. */
  read(request: Request, peer: string, otherToken: string | undefined, door: Door): Attempt
  /** Whether nobody is let in now. */
  closed(): RefusalCode | undefined
  /** What the token allows here. @param subscribes whether the client is on its channels from the start; most are. */
  admit(attempt: Attempt, subscribes?: boolean): Grant | Refusal | Promise<Grant | Refusal>
  /** A grant, narrowed to what is decided of its channels now. */
  decided(grant: Grant): Grant | Refusal | Promise<Grant | Refusal>
  /** Makes a session of what was admitted, with its channels followed. */
  connect(attempt: Attempt, grant: Grant, protocol: Protocol): Session | Refusal | Promise<Session | Refusal>
  /** Counts and logs a refusal, and answers it. */
  reject(attempt: Attempt, code: RefusalCode): Response
}

export function createAdmission(options: AdmissionOptions): Admission {
  const { authenticator, authority, allowedOrigins, trustedProxies, sessions, metrics, product } = options
  const logRefusal = createRefusalLog(options.log)
  const beginningOf = createBeginnings(options.history)

  function granted({ asked }: Attempt, permit: Permit | Refusal, subscribes: boolean): ReturnType<typeof decided> {
    const allowed = isRefusal(permit) ? permit : grant(permit, asked, Date.now(), subscribes)
    return isRefusal(allowed) ? allowed : decided(allowed)
  }

  function decided(allowed: Grant): Grant | Refusal | Promise<Grant | Refusal> {
    if (!authority) return allowed
    return inTick(authority.decide(allowed, allowed.channels), (decisions) => narrowed(allowed, decisions))
  }

  function create(
    { address }: Attempt,
    allowed: Grant,
    protocol: Protocol,
    beginning: Beginning | Refusal,
  ): Session | Refusal | Promise<Session | Refusal> {
    if (!isBeginning(beginning)) return beginning
    if (sessions.count >= options.maxConnections) return refuse('TOO_MANY_CONNECTIONS')
    const { session, ready } = sessions.create(allowed, protocol, address, beginning)
    if (ready === undefined) return session
    return ready.then((channels) => {
      const refusal = channels.find((channel) => channel !== undefined)
      if (refusal === undefined) return session
      sessions.discard(session)
      return refusal
    })
  }

  return {
    read(request, peer, otherToken, door) {
      const { headers, url } = request
      const forwarded = trustedProxies.length === 0 ? null : headers.get('X-Forwarded-For')
      const address = clientAddress(peer, forwarded, trustedProxies)
      const authorization = headers.get('Authorization')
      const bearer = authorization === null ? undefined : bearerToken(authorization)
      return { request, address, door, ...readAsked(readPath(url), otherToken ?? bearer) }
    },
    closed: options.admission,
    admit(attempt, subscribes = true) {
      const { request, token } = attempt
      const closed = options.admission()
      if (closed) return refuse(closed)
      const origin = request.headers.get('Origin')
      if (origin !== null && allowedOrigins && !allowedOrigins.includes(origin)) return refuse('ORIGIN_NOT_ALLOWED')
      if (token === undefined) return refuse('TOKEN_MISSING')
      return inTick(authenticator.verify(token), (permit) => granted(attempt, permit, subscribes))
    },
    decided,
    connect(attempt, allowed, protocol) {
      if (protocol.commands && allowed.channels.length > options.maxSubscriptions) return refuse('TOO_MANY_SUBSCRIPTIONS')
      // Without history the query says nothing, as of old.
      const asked = options.history && readAskedOfHistory(attempt.request)
      if (asked && isRefusal(asked)) return asked
      return inTick(beginningOf(asked, readable(allowed), protocol), (beginning) => create(attempt, allowed, protocol, beginning))
    },
    reject({ request, address, asked, token, door }, code) {
      metrics.refused.add(code.toLowerCase())
      const { status, reason } = refusals[code]
      const channel = asked === undefined ? {} : { channel: shown(asked) }
      logRefusal(door, () => ({ status, reason, address, ...channel, path: shownPath(readPath(request.url), token) }))
      return refusalAnswer(code, product)
    },
  }
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

/** Any other scheme than Bearer is meant for somebody else, such as a proxy. */
const bearerToken = (header: string): string | undefined => /^bearer +(\S+)$/i.exec(header)?.[1]
