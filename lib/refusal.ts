/**
 * Owns every refusal of the program: one table from a stable code to what the client sees, so that answers, close frames, log lines,
 * metric labels and the tables of docs/protocol.md cannot disagree.
 */

/** PostgreSQL refuses a notification of this many bytes or more (manual page of NOTIFY). */
export const NOTIFICATION_BYTES = 8000

/**
 * What may wait for the database: the messages' lengths, each with an allowance for what it costs beside its text. What one client's
 * messages share is counted for each of them: a client that comes anew for each message shares nothing.
 */
export const BUFFER_BYTES = 64 * 1024 * 1024
export const BUFFERED_MESSAGE_BYTES = 200

/** Publishes of one client that may wait for their answer at once. */
export const UNANSWERED_PUBLISHES = 20_000

interface Entry {
  /** HTTP status, where it answers a request. */
  readonly status?: number
  /** WebSocket close code (RFC 6455 section 7.4), where it ends a connection; 1006 ends it without a close frame. */
  readonly close?: number
  /** Whether it answers a command of `pgws.json`; the connection stays. */
  readonly command?: true
  /** What the answer or the close frame says. */
  readonly reason: string
  /** Whether connecting again can help. */
  readonly again: string
}

const NEVER = 'no'
const OTHER_TOKEN = 'with another token'
const LATER = 'later'
const AT_ONCE = 'at once'

export const refusals = {
  TOKEN_MISSING: { status: 401, reason: 'Missing token', again: OTHER_TOKEN },
  TOKEN_MALFORMED: { command: true, status: 401, reason: 'Malformed token', again: OTHER_TOKEN },
  TOKEN_NOT_VERIFIED: { command: true, status: 401, reason: 'Token not verified', again: OTHER_TOKEN },
  KEY_UNKNOWN: { command: true, status: 401, reason: 'Token not verified', again: OTHER_TOKEN },
  TOKEN_EXPIRED: { command: true, status: 401, reason: 'Token expired', again: OTHER_TOKEN },
  TOKEN_REVOKED: { command: true, status: 401, reason: 'Token revoked', again: OTHER_TOKEN },
  TOKEN_NOT_YET_VALID: { command: true, status: 401, reason: 'Token not yet valid', again: LATER },
  AUDIENCE_WRONG: { command: true, status: 401, reason: 'Token for another audience', again: OTHER_TOKEN },
  ISSUER_WRONG: { command: true, status: 401, reason: 'Token of another issuer', again: OTHER_TOKEN },
  MODE_MISSING: { command: true, status: 403, reason: 'Missing mode', again: OTHER_TOKEN },
  MODE_UNKNOWN: { command: true, status: 403, reason: 'Unknown mode: r, w and rw are known', again: OTHER_TOKEN },
  ROLE_MISSING: { command: true, status: 403, reason: 'Missing role', again: OTHER_TOKEN },
  ROLE_NOT_ALLOWED: { command: true, status: 403, reason: 'The role of the token cannot be taken', again: OTHER_TOKEN },
  CHANNEL_NOT_ALLOWED: { command: true, status: 403, reason: 'No allowed channels', again: OTHER_TOKEN },
  MODE_NOT_ALLOWED: { command: true, status: 403, reason: 'The mode of the token does not allow this', again: OTHER_TOKEN },
  COMMAND_MALFORMED: { command: true, reason: 'Not a command: docs/protocol.md has their form', again: NEVER },
  COMMAND_UNKNOWN: {
    command: true,
    reason: 'Unknown command: subscribe, unsubscribe, publish, token and ping are known',
    again: NEVER,
  },
  NOT_SUBSCRIBED: { command: true, reason: 'Not subscribed to this channel', again: NEVER },
  TOO_MANY_SUBSCRIPTIONS: {
    command: true,
    status: 403,
    reason: 'Too many subscriptions: PGWS_MAX_SUBSCRIPTIONS is the limit',
    again: NEVER,
  },
  TOO_MANY_UNANSWERED: {
    command: true,
    reason: `Too many publishes without an answer: ${UNANSWERED_PUBLISHES} is the limit`,
    again: LATER,
  },
  TOKEN_UNDER_WAY: { command: true, reason: 'The token before is still being verified', again: LATER },
  ORIGIN_NOT_ALLOWED: { status: 403, reason: 'Origin not allowed', again: NEVER },
  PATH_FORBIDDEN: { status: 403, reason: 'Forbidden', again: NEVER },
  PATH_NOT_FOUND: { status: 404, reason: 'Not found', again: NEVER },
  METHOD_NOT_ALLOWED: { status: 405, reason: 'Method not allowed', again: NEVER },
  HANDSHAKE_MALFORMED: { status: 400, reason: 'Not a WebSocket handshake of version 13', again: NEVER },
  PROTOCOL_MISSING: { status: 400, reason: 'Offer the subprotocol pgws beside the token', again: NEVER },
  HISTORY_MALFORMED: { status: 400, reason: 'since and last: one of them, and last is a number from 1 to 1000', again: NEVER },
  POSITION_MALFORMED: { command: true, status: 400, reason: 'Not a position', again: NEVER },
  POSITION_LOST: { status: 410, reason: 'What lies behind this position is not kept any more', again: 'without the position' },
  HISTORY_UNAVAILABLE: { command: true, status: 503, reason: 'The history cannot be read', again: LATER },
  BODY_INCOMPLETE: { status: 400, reason: 'The body did not come whole', again: AT_ONCE },
  KEY_TOO_LONG: { status: 400, reason: 'Idempotency-Key has more than 256 characters', again: NEVER },
  INTERNAL: { command: true, status: 500, reason: 'Internal error', again: LATER },
  NOT_READY: { status: 503, reason: 'Not listening to the database yet', again: LATER },
  SHUTTING_DOWN: { status: 503, reason: 'Shutting down', again: LATER },
  KEYS_UNAVAILABLE: {
    command: true,
    status: 503,
    reason: 'The keys that verify tokens are not available',
    again: LATER,
  },
  AUTHORITY_UNAVAILABLE: {
    command: true,
    status: 503,
    reason: 'The database does not say whether this is allowed',
    again: LATER,
  },
  TOO_MANY_CHANNELS: {
    command: true,
    status: 503,
    reason: 'Too many database channels: PGWS_MAX_DATABASE_CHANNELS is the limit',
    again: LATER,
  },
  CHANNEL_NOT_LISTENED: {
    command: true,
    status: 503,
    reason: 'The database does not listen to this channel',
    again: NEVER,
  },
  TOO_MANY_CONNECTIONS: { status: 503, reason: 'Too many connections', again: LATER },
  SHUTDOWN: { close: 1001, reason: 'Server is shutting down: connect again', again: AT_ONCE },
  READS_TOO_SLOWLY: { close: 1006, reason: 'reads too slowly', again: AT_ONCE },
  SILENT: { close: 1006, reason: 'answers no ping', again: AT_ONCE },
  NOT_TEXT: { command: true, status: 400, close: 1007, reason: 'Messages are UTF-8 text without NUL', again: NEVER },
  TOO_FAST: {
    status: 429,
    close: 1008,
    reason: 'Too many messages a second: PGWS_MAX_MESSAGES_PER_SECOND is the limit',
    again: 'more slowly',
  },
  TOO_LARGE: {
    command: true,
    status: 413,
    close: 1009,
    reason: `Too large for NOTIFY: the envelope must stay below ${NOTIFICATION_BYTES} bytes`,
    again: 'with a smaller message',
  },
  TOO_LARGE_TO_KEEP: {
    command: true,
    status: 413,
    close: 1009,
    reason: 'Too large: PGWS_MAX_MESSAGE_BYTES is the limit',
    again: 'with a smaller message',
  },
  CHANNEL_LOST: {
    close: 1011,
    reason: 'The database does not listen to a channel of this connection any more',
    again: NEVER,
  },
  REFUSED_BY_DATABASE: {
    command: true,
    status: 422,
    close: 1011,
    reason: 'The database refused the message',
    again: 'without that message',
  },
  MESSAGES_MISSED: { close: 1012, reason: 'Messages may have been missed: connect again', again: AT_ONCE },
  BUFFER_FULL: {
    command: true,
    status: 503,
    close: 1013,
    reason: 'The buffer for the database is full: try again later',
    again: LATER,
  },
  OUTCOME_UNKNOWN: {
    status: 504,
    reason: 'Outcome unknown: repeat with the same Idempotency-Key',
    again: AT_ONCE,
  },
  DISCONNECTED: { close: 3002, reason: 'disconnected', again: 'unless the reason says otherwise' },
  ACCESS_WITHDRAWN: { command: true, close: 3003, reason: 'Access withdrawn: connect again', again: AT_ONCE },
  EXPIRED: { close: 3001, reason: 'JWT expired', again: OTHER_TOKEN },
} as const satisfies Readonly<Record<string, Entry>>

type CodesWith<Member extends 'status' | 'close' | 'command'> = {
  [Code in keyof typeof refusals]: (typeof refusals)[Code] extends { readonly [M in Member]: Entry[M] } ? Code : never
}[keyof typeof refusals]

/** What answers a request. */
export type RefusalCode = CodesWith<'status'>

/** What ends a connection. */
export type ClosureCode = CodesWith<'close'>

/** What answers a command. */
export type CommandCode = CodesWith<'command'>

/** A refusal as it answers a command. */
export const commandCode = ({ refused }: Refusal): CommandCode => (answersCommand(refused) ? refused : 'INTERNAL')

const answersCommand = (code: keyof typeof refusals): code is CommandCode => 'command' in refusals[code]

/** What the server's close frame says. @param reason another than the usual. */
export const closing = (
  closure: ClosureCode,
  reason: string = refusals[closure].reason,
): { readonly code: number; readonly reason: string } => ({ code: refusals[closure].close, reason })

/** A request or token that is refused. It is returned and not thrown: callers decide what it means. */
export interface Refusal {
  readonly refused: RefusalCode
}

export const refuse = (refused: RefusalCode): Refusal => ({ refused })

export const isRefusal = (value: object): value is Refusal => 'refused' in value

/** The answer to a request that is refused. @param product the value of its Server header. */
export function refusalAnswer(code: RefusalCode, product: string): Response {
  const { status, reason } = refusals[code]
  const headers = new Headers({
    'Content-Type': 'text/plain; charset=UTF-8',
    'X-Content-Type-Options': 'nosniff',
    Server: product,
  })
  if (status === 503 || status === 429) headers.set('Retry-After', '1')
  if (status === 401) headers.set('WWW-Authenticate', 'Bearer')
  if (status === 405) headers.set('Allow', 'GET, HEAD, POST')
  return new Response(reason, { status, headers })
}
