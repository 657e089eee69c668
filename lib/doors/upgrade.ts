/** Owns which requests become WebSockets. */

import type { Grant } from '../access/grant.ts'
import type { Session, Sessions } from '../channels/session.ts'
import { isRefusal, type Refusal } from '../refusal.ts'
import type { Exchange, Handlers } from '../runtime/contract.ts'
import { inTick } from '../waiting.ts'
import type { Admission, Attempt } from './admission.ts'
import { readQuery } from './target.ts'
import type { Protocols } from './websocket.ts'

export interface UpgradesOptions {
  readonly admission: Admission
  readonly sessions: Pick<Sessions, 'discard'>
  readonly protocols: Protocols
  /** `postgres-websockets/VERSION` */
  readonly product: string
}

/** A request for an upgrade. */
interface UpgradeAttempt extends Attempt {
  readonly exchange: Exchange<Session>
  readonly offer: Offer
}

export const isUpgrade = (request: Request): boolean => request.headers.get('Upgrade')?.toLowerCase() === 'websocket'

/**
 * Answers in the tick of the request wherever it can, because Bun refuses a client that sends frames before its upgrade. It waits only
 * for a key set that must be fetched first, and for a database channel that is not listened to yet.
 */
export function createUpgrades({ admission, sessions, protocols, product }: UpgradesOptions): Handlers<Session>['request'] {
  /** What an upgrade is answered with, but for another subprotocol; made once, for most clients ask for one of these. */
  const upgradeHeaders = {
    none: protocolHeaders(undefined),
    pgws: protocolHeaders('pgws'),
    'pgws.json': protocolHeaders('pgws.json'),
  }
  const upgraded = new Response(null)

  function connect(attempt: UpgradeAttempt, allowed: Grant | Refusal): Response | Promise<Response> {
    if (isRefusal(allowed)) return admission.reject(attempt, allowed.refused)
    const { selected } = attempt.offer
    const protocol = isKnown(selected) ? protocols[selected] : protocols.plain
    return inTick(admission.connect(attempt, allowed, protocol), (session) => accept(attempt, session))
  }

  function accept(attempt: UpgradeAttempt, session: Session | Refusal): Response {
    if (isRefusal(session)) return admission.reject(attempt, session.refused)
    const protocol = attempt.offer.selected
    const headers =
      protocol === undefined ? upgradeHeaders.none : isKnown(protocol) ? upgradeHeaders[protocol] : protocolHeaders(protocol)
    // The server may have begun to shut down while this request waited.
    const closed = admission.closed()
    if (!closed && attempt.exchange.upgrade(attempt.request, session, headers)) return upgraded
    sessions.discard(session)
    return admission.reject(attempt, closed ?? 'HANDSHAKE_MALFORMED')
  }

  function protocolHeaders(protocol: string | undefined): Headers {
    return new Headers({ Server: product, ...(protocol === undefined ? {} : { 'Sec-WebSocket-Protocol': protocol }) })
  }

  return (request, exchange) => {
    const { headers } = request
    const offered = headers.get('Sec-WebSocket-Protocol')
    const offer = offered === null ? NO_OFFER : readOffer(offered)
    const attempt = { ...admission.read(request, exchange.address(request), offer.token, 'upgrade'), exchange, offer }
    const closed = admission.closed()
    if (closed) return admission.reject(attempt, closed)
    if (!isHandshake(headers)) return admission.reject(attempt, 'HANDSHAKE_MALFORMED')
    // Bun would select the first offered subprotocol by itself, which may be the token.
    if (offer.token !== undefined && offer.selected === undefined) return admission.reject(attempt, 'PROTOCOL_MISSING')
    const subscribes = offer.selected !== 'pgws.json' || !asksForNone(request.url)
    return inTick(admission.admit(attempt, subscribes), (allowed) => connect(attempt, allowed))
  }
}

/**
 * What RFC 6455 section 4.2.1 asks of a request beyond what the runtime looks at. No host is how HTTP/1.0 shows, whose requests need
 * none; one that names its host cannot be told from a later one on Bun.
 */
const isHandshake = (headers: Headers): boolean =>
  headers.has('Host') && /(^|,)[ \t]*upgrade[ \t]*(,|$)/i.test(headers.get('Connection') ?? '')

/** The subprotocols that this server knows, the one that is selected first ahead. */
const known = ['pgws.json', 'pgws'] as const

const isKnown = (name: string | undefined): name is (typeof known)[number] => known.some((protocol) => protocol === name)

/** Whether a client is to be on no channel from the start. */
const asksForNone = (url: string): boolean => readQuery(url)?.get('subscribe') === 'none'

/** The prefix of the subprotocol that carries the token, because browsers cannot set headers. */
const TOKEN_PROTOCOL = 'pgws.token.'

interface Offer {
  /** The subprotocol that is selected. */
  readonly selected: string | undefined
  readonly token: string | undefined
}

const NO_OFFER: Offer = { selected: undefined, token: undefined }

/**
 * What the offered subprotocols mean. One that is known is selected where it is offered, else the first that is no token: a browser ends a
 * connection of which it offered some and none was selected.
 */
function readOffer(header: string): Offer {
  const offers = header.split(',').map((name) => name.trim())
  const names = offers.filter((name) => name !== '' && !name.startsWith(TOKEN_PROTOCOL))
  const token = offers.find((name) => name.startsWith(TOKEN_PROTOCOL))?.slice(TOKEN_PROTOCOL.length)
  return { selected: known.find((name) => names.includes(name)) ?? names[0], token }
}
