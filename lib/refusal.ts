/**
 * Owns every "no" of the program: one table from a stable code to what the other side sees, so that answers, close frames, log
 * lines, metric labels and the README's tables cannot disagree.
 */

/** Answers to a request that is not served: HTTP status and the plain-text reason. */
export const refusals = {
  TOKEN_MISSING: { status: 401, reason: 'Missing token' },
  TOKEN_MALFORMED: { status: 401, reason: 'Malformed token' },
  TOKEN_NOT_VERIFIED: { status: 401, reason: 'Token not verified' },
  KEY_UNKNOWN: { status: 401, reason: 'Token not verified' },
  KEYS_UNAVAILABLE: { status: 503, reason: 'The keys that verify tokens are not available' },
  TOKEN_EXPIRED: { status: 401, reason: 'Token expired' },
  TOKEN_NOT_YET_VALID: { status: 401, reason: 'Token not yet valid' },
  AUDIENCE_WRONG: { status: 401, reason: 'Token for another audience' },
  ISSUER_WRONG: { status: 401, reason: 'Token of another issuer' },
  MODE_MISSING: { status: 403, reason: 'Missing mode' },
  MODE_UNKNOWN: { status: 403, reason: 'Unknown mode: r, w and rw are known' },
  CHANNEL_NOT_ALLOWED: { status: 403, reason: 'No allowed channels' },
  ORIGIN_NOT_ALLOWED: { status: 403, reason: 'Origin not allowed' },
  PATH_FORBIDDEN: { status: 403, reason: 'Forbidden' },
  PATH_NOT_FOUND: { status: 404, reason: 'Not found' },
  METHOD_NOT_ALLOWED: { status: 405, reason: 'Method not allowed' },
  HANDSHAKE_MALFORMED: { status: 400, reason: 'Not a WebSocket handshake of version 13' },
  PROTOCOL_MISSING: { status: 400, reason: 'Offer the subprotocol pgws beside the token' },
  NOT_READY: { status: 503, reason: 'Not listening to the database yet' },
  SHUTTING_DOWN: { status: 503, reason: 'Shutting down' },
  TOO_MANY_CHANNELS: { status: 503, reason: 'Too many database channels: PGWS_MAX_DATABASE_CHANNELS is the limit' },
  CHANNEL_NOT_LISTENED: { status: 503, reason: 'The database does not listen to this channel' },
  TOO_MANY_CONNECTIONS: { status: 503, reason: 'Too many connections' },
  INTERNAL: { status: 500, reason: 'Internal error' },
} as const

export type RefusalCode = keyof typeof refusals

/** Ends of a connection that this server decides: WebSocket close code (RFC 6455 section 7.4) and the reason in its frame. */
export const closures = {
  SHUTDOWN: { code: 1001, reason: 'Server is shutting down: connect again' },
  NOT_TEXT: { code: 1007, reason: 'Messages are UTF-8 text without NUL' },
  TOO_FAST: { code: 1008, reason: 'Too many messages a second: PGWS_MAX_MESSAGES_PER_SECOND is the limit' },
  TOO_LARGE: { code: 1009, reason: 'Too large for NOTIFY: the envelope must stay below 8000 bytes' },
  CHANNEL_LOST: { code: 1011, reason: 'The database does not listen to a channel of this connection any more' },
  REFUSED_BY_DATABASE: { code: 1011, reason: 'The database refused the message' },
  MESSAGES_MISSED: { code: 1012, reason: 'Messages may have been missed: connect again' },
  BUFFER_FULL: { code: 1013, reason: 'The buffer for the database is full: try again later' },
  EXPIRED: { code: 3001, reason: 'JWT expired' },
} as const

export type ClosureCode = keyof typeof closures

/** A request or token that is turned away. Carried as a value, for the callers decide what it means. */
export interface Refusal {
  readonly refused: RefusalCode
}

export const refuse = (refused: RefusalCode): Refusal => ({ refused })

export const isRefusal = (value: object): value is Refusal => 'refused' in value

/** A refusal as the request is answered. @param product what it names as its server. */
export function refusalAnswer(code: RefusalCode, product: string): Response {
  const { status, reason } = refusals[code]
  const headers = new Headers({
    'Content-Type': 'text/plain; charset=UTF-8',
    'X-Content-Type-Options': 'nosniff',
    Server: product,
  })
  if (status === 503) headers.set('Retry-After', '1')
  if (status === 401) headers.set('WWW-Authenticate', 'Bearer')
  if (status === 405) headers.set('Allow', 'GET, HEAD')
  return new Response(reason, { status, headers })
}
