/**
 * Owns the table of variables: name, default, help and how a value is read. The parser, `--help`, `sample-env` and docs/configuration.md
 * follow from it. Pure.
 */
import { Fault } from '../fault.ts'
import { boolean, channel, functionName, host, LONGEST, list, networks, oneOf, required, text, url, whole } from './values.ts'

export interface Variable<T> {
  readonly name: `PGWS_${string}`
  /** The default, as `--help` and docs/configuration.md show it. */
  readonly default: string
  /** The value in `sample-env`; undefined leaves it commented out there, with `example`. */
  readonly sample?: string
  /** The value in `sample-env` is only for trying the program out. The environment file of a deployment leaves it commented out. */
  readonly isForTrial?: true
  /** A value that works, for messages about one that does not. */
  readonly example: string
  /** One or more sentences. */
  readonly meaning: string
  /** The value of an unset (or empty) variable is undefined. @throws Fault */
  readonly parse: (text: string | undefined) => T
}

const variable = <T>(definition: Variable<T>): Variable<T> => definition

/** Events that the server sends to its meta channel. */
const metaEvents = ['ConnectionOpen', 'ConnectionClose', 'ListenerRestored'] as const

export type MetaEvent = (typeof metaEvents)[number]

/** Names that other fields of a log line about a client have already. */
const LOG_FIELDS = ['time', 'level', 'event', 'client', 'address', 'channels', 'mode', 'code', 'reason', 'seconds']

function logClaim(value: string | undefined): string | undefined {
  if (value !== undefined && LOG_FIELDS.includes(value))
    throw new Fault(`is ${JSON.stringify(value)}, which is a field of the log already`)
  return value
}

function events(value: string | undefined): readonly MetaEvent[] {
  const asked = list(value) ?? ['ConnectionOpen']
  if (asked.includes('all')) return metaEvents
  return asked.map(oneOf(metaEvents))
}

export const variables = {
  databaseUri: variable({
    name: 'PGWS_DB_URI',
    default: 'required',
    sample: 'postgres://postgres:password@localhost:5432/postgres',
    isForTrial: true,
    example: 'postgres://user:password@localhost:5432/app',
    meaning:
      'How to reach PostgreSQL, as libpq takes it: a postgres:// URI or "host=… dbname=…" keywords; the PG* variables and the password file fill what is missing. @FILE reads it from a file.',
    parse: required,
  }),
  jwtSecret: variable({
    name: 'PGWS_JWT_SECRET',
    default: 'required, or PGWS_JWKS_URL',
    sample: 'auwhfdnskjhewfi34uwehdlaehsfkuaeiskjnfduierhfsiweskjcnzeiluwhskdewishdnpwe',
    isForTrial: true,
    example: '@/etc/postgres-websockets/jwt-secret',
    meaning:
      'The key that tokens are verified with: a secret of at least 32 bytes (HS256, HS384, HS512), a JWK, or a JWK set with oct, RSA, EC and OKP keys. @FILE reads it from a file, less one newline at its end.',
    parse: text,
  }),
  jwtSecretIsBase64: variable({
    name: 'PGWS_JWT_SECRET_BASE64',
    default: 'False',
    sample: 'False',
    example: 'True',
    meaning: 'The secret is base64 or base64url encoded, also when it is read from a file; "." may stand for "=".',
    parse: boolean,
  }),
  rootPath: variable({
    name: 'PGWS_ROOT_PATH',
    default: 'unset',
    sample: './client-example',
    isForTrial: true,
    example: '/var/www/app',
    meaning: 'Folder of static files to serve. Unset serves none: every path then answers 200 with a short text.',
    parse: text,
  }),
  host: variable({
    name: 'PGWS_HOST',
    default: '*4',
    sample: '*4',
    example: '127.0.0.1',
    meaning:
      'Address to bind: a name or address, or * any, *4 any IPv4 (IPv6 where there is no IPv4), !4 IPv4 only, *6 any, IPv6 with IPv4 on the same socket, !6 IPv6 only.',
    parse: host('*4'),
  }),
  port: variable({
    name: 'PGWS_PORT',
    default: '3000',
    sample: '3000',
    example: '3000',
    meaning: 'Port to bind. 0 takes a free one, which "Listening on port" names.',
    parse: whole(3000, 0, 65_535),
  }),
  listenChannel: variable({
    name: 'PGWS_LISTEN_CHANNEL',
    default: 'postgres-websockets-listener',
    sample: 'postgres-websockets-listener',
    example: 'postgres-websockets-listener',
    meaning: 'The database channel that carries every message, both ways. At most 63 bytes.',
    parse: channel('postgres-websockets-listener'),
  }),
  journal: variable({
    name: 'PGWS_JOURNAL',
    default: 'False',
    sample: 'False',
    example: 'True',
    meaning:
      'Deliver what pgws.publish() put into the journal, with history and resume, beside notifications. Needs the schema that --install creates.',
    parse: boolean,
  }),
  connections: variable({
    name: 'PGWS_CONNECTIONS',
    default: 'False',
    sample: 'False',
    example: 'True',
    meaning:
      'Show who is connected in the view pgws.connections, end connections by pgws.disconnect() and refuse tokens by pgws.revoke(). Needs the schema that --install creates.',
    parse: boolean,
  }),
  journalChannels: variable({
    name: 'PGWS_JOURNAL_CHANNELS',
    default: 'unset',
    example: 'orders,chat_*',
    meaning:
      'With PGWS_JOURNAL, comma-separated patterns of channels; * stands for any text. What clients send on them is kept in the journal instead of going out by NOTIFY.',
    parse: list,
  }),
  journalRetention: variable({
    name: 'PGWS_JOURNAL_RETENTION',
    default: '1 day',
    sample: '1 day',
    example: '7 days',
    meaning: 'How long the journal keeps messages: an interval as PostgreSQL reads it, at least 10 seconds.',
    parse: (value) => value ?? '1 day',
  }),
  journalCacheBytes: variable({
    name: 'PGWS_JOURNAL_CACHE_BYTES',
    default: '16777216',
    sample: '16777216',
    example: '67108864',
    meaning: 'Bytes of memory for the newest messages of the journal. Who comes back within them costs the database no query.',
    parse: whole(16_777_216, 0, 2_147_483_647),
  }),
  maxMessageBytes: variable({
    name: 'PGWS_MAX_MESSAGE_BYTES',
    default: '1048576',
    sample: '1048576',
    example: '65536',
    meaning:
      'The most bytes of a message, with its envelope, on channels of the journal. On others the 8000 bytes of NOTIFY are the limit.',
    parse: whole(1_048_576, 8000, 1_048_576),
  }),
  metaChannel: variable({
    name: 'PGWS_META_CHANNEL',
    default: 'unset',
    sample: 'server-info',
    example: 'server-info',
    meaning: 'Channel for events about the server itself; PGWS_META_EVENTS names which.',
    parse: text,
  }),
  poolSize: variable({
    name: 'PGWS_POOL_SIZE',
    default: '10',
    sample: '10',
    example: '10',
    meaning:
      'Most connections in which PGWS_MESSAGE_FUNCTION is called; they are opened as they are needed. Without it, the variable changes nothing: one connection sends all notifications, in batches. PostgreSQL commits notifications one after the other, so more connections would send no faster.',
    parse: whole(10, 1, 10_000),
  }),
  retries: variable({
    name: 'PGWS_RETRIES',
    default: '5',
    sample: '5',
    example: '5',
    meaning:
      'Attempts to reach the database at start, with waits of 1 s, 2 s, 4 s … at most 32 s between them; then an error and exit 1.',
    parse: whole(5, 0, 1_000_000),
  }),
  checkInterval: variable({
    name: 'PGWS_CHECK_LISTENER_INTERVAL',
    default: 'unset',
    sample: '10000',
    example: '10000',
    meaning:
      'Milliseconds, and the longest time for which a broken listener goes unnoticed. Set: the server heals it and keeps every client. Unset or 0: it checks every 10 s and stops with exit 1 when the listener is lost, so that a supervisor restarts it.',
    parse: whole(0, 0, LONGEST),
  }),
  closeAfterOutage: variable({
    name: 'PGWS_CLOSE_AFTER_OUTAGE',
    default: 'False',
    sample: 'True',
    example: 'True',
    meaning:
      'Readers that cannot be told what they may have missed, for they did not offer the subprotocol pgws, are closed with 1012 once LISTEN stands again, so that they connect again and fetch their state. False leaves them open, without a word.',
    parse: boolean,
  }),
  certificateFile: variable({
    name: 'PGWS_CERTIFICATE_FILE',
    default: 'unset',
    example: '/etc/ssl/certs/server.crt',
    meaning: 'PEM file of the certificate chain. With PGWS_KEY_FILE, the server speaks TLS (wss:// and https://).',
    parse: text,
  }),
  keyFile: variable({
    name: 'PGWS_KEY_FILE',
    default: 'unset',
    example: '/etc/ssl/private/server.key',
    meaning: "PEM file of the certificate's private key. Both or neither.",
    parse: text,
  }),
  databaseChannels: variable({
    name: 'PGWS_DATABASE_CHANNELS',
    default: 'unset',
    example: 'orders,chat_*',
    meaning:
      'Comma-separated patterns of database channels that a client may receive directly: while a client with r is on a matching channel, what NOTIFY sends there reaches it as it is. * stands for any text.',
    parse: list,
  }),
  maxDatabaseChannels: variable({
    name: 'PGWS_MAX_DATABASE_CHANNELS',
    default: '10000',
    sample: '10000',
    example: '10000',
    meaning: 'Database channels that are listened to at once. Above them, upgrades that need another get 503.',
    parse: whole(10_000, 1, 1_000_000),
  }),
  adminPort: variable({
    name: 'PGWS_ADMIN_PORT',
    default: 'unset',
    example: '3001',
    meaning: 'A second port with /live, /ready and /metrics.',
    parse: whole(undefined, 0, 65_535),
  }),
  adminHost: variable({
    name: 'PGWS_ADMIN_HOST',
    default: 'as PGWS_HOST',
    example: '127.0.0.1',
    meaning: 'Address to bind the admin port on.',
    parse: host(undefined),
  }),
  jwksUrl: variable({
    name: 'PGWS_JWKS_URL',
    default: 'unset',
    example: 'https://example.org/.well-known/jwks.json',
    meaning:
      'Verify with the key set at this URL, which is fetched again every 10 minutes and for an unknown kid. One of this and PGWS_JWT_SECRET is required; with both, the keys of both count.',
    parse: url,
  }),
  jwtAudience: variable({
    name: 'PGWS_JWT_AUDIENCE',
    default: 'unset',
    example: 'postgres-websockets',
    meaning: 'The aud that a token must have. Unset checks none.',
    parse: text,
  }),
  jwtIssuer: variable({
    name: 'PGWS_JWT_ISSUER',
    default: 'unset',
    example: 'https://example.org/',
    meaning: 'The iss that a token must have. Unset checks none.',
    parse: text,
  }),
  modeClaim: variable({
    name: 'PGWS_JWT_MODE_CLAIM',
    default: 'mode',
    sample: 'mode',
    example: 'https://example.org/mode',
    meaning: 'Name of the claim that holds the mode.',
    parse: (value) => value ?? 'mode',
  }),
  channelsClaim: variable({
    name: 'PGWS_JWT_CHANNELS_CLAIM',
    default: 'channels',
    sample: 'channels',
    example: 'https://example.org/channels',
    meaning: 'Name of the claim that holds the list of channels.',
    parse: (value) => value ?? 'channels',
  }),
  jwtRoleClaim: variable({
    name: 'PGWS_JWT_ROLE_CLAIM',
    default: 'unset',
    example: 'role',
    meaning:
      'Name of the claim that holds the role of the database under which functions are called for a client, so that grants and row-level security apply. A token without it is refused. Unset calls them under the role of the server.',
    parse: text,
  }),
  authorizeFunction: variable({
    name: 'PGWS_AUTHORIZE_FUNCTION',
    default: 'unset',
    example: 'api.may',
    meaning:
      'schema.name of a function (channel text) returns text that decides what a client may on a channel: r, w, rw, or null for nothing. It narrows what the token allows.',
    parse: functionName,
  }),
  authorizeInterval: variable({
    name: 'PGWS_AUTHORIZE_INTERVAL',
    default: '60000',
    sample: '60000',
    example: '60000',
    meaning:
      'Milliseconds after which the function of PGWS_AUTHORIZE_FUNCTION is asked again about each client that is connected. Who is not allowed any more loses the channel.',
    parse: whole(60_000, 100, LONGEST),
  }),
  messageFunction: variable({
    name: 'PGWS_MESSAGE_FUNCTION',
    default: 'unset',
    example: 'api.handle_message',
    meaning:
      'schema.name of a function (channel text, payload text) returns text that is called for each message of a client. What it returns is published on the channel in place of the message; null publishes nothing, and an exception refuses the message.',
    parse: functionName,
  }),
  forwardClaims: variable({
    name: 'PGWS_FORWARD_CLAIMS',
    default: 'unset (all)',
    example: 'sub,name',
    meaning:
      "Comma-separated claims that go into envelopes. Every reader of a channel sees its writers' claims, and they count against NOTIFY's 8000 bytes.",
    parse: list,
  }),
  metaEvents: variable({
    name: 'PGWS_META_EVENTS',
    default: 'ConnectionOpen',
    sample: 'all',
    example: 'ConnectionOpen,ConnectionClose',
    meaning: 'Comma-separated events that go to the meta channel: ConnectionOpen, ConnectionClose, ListenerRestored, or all.',
    parse: events,
  }),
  allowedOrigins: variable({
    name: 'PGWS_ALLOWED_ORIGINS',
    default: 'unset (any)',
    example: 'https://example.org,https://www.example.org',
    meaning:
      'Comma-separated origins from which a browser may open a connection; 403 for others. A client that sends no Origin is no browser.',
    parse: list,
  }),
  trustedProxies: variable({
    name: 'PGWS_TRUSTED_PROXIES',
    default: 'unset (none)',
    example: '127.0.0.1,10.0.0.0/8,fd00::/8',
    meaning:
      "Comma-separated addresses and networks of proxies whose X-Forwarded-For counts. A client's address, in the log, is the rightmost in it that is not among them; that of the connection where it is unset.",
    parse: networks,
  }),
  maxConnections: variable({
    name: 'PGWS_MAX_CONNECTIONS',
    default: 'unset',
    example: '10000',
    meaning: 'Further upgrades get 503 and Retry-After.',
    parse: whole(Number.POSITIVE_INFINITY, 1, LONGEST),
  }),
  maxMessagesPerSecond: variable({
    name: 'PGWS_MAX_MESSAGES_PER_SECOND',
    default: 'unset',
    example: '100',
    meaning:
      'Messages and pings that one connection may send within a second, whether it may write or not; above them it is closed with 1008.',
    parse: whole(Number.POSITIVE_INFINITY, 1, LONGEST),
  }),
  maxSubscriptions: variable({
    name: 'PGWS_MAX_SUBSCRIPTIONS',
    default: '1000',
    sample: '1000',
    example: '1000',
    meaning:
      'Channels that one client with the subprotocol pgws.json may be subscribed to at once. Above them a subscribe is refused, and an upgrade for more gets 403.',
    parse: whole(1000, 1, 1_000_000),
  }),
  sendBufferBytes: variable({
    name: 'PGWS_SEND_BUFFER_BYTES',
    default: '1048576',
    sample: '1048576',
    example: '1048576',
    meaning:
      'Bytes that may wait for one slow client, beside one message of the longest so far. A client with more is dropped and sees 1006, so that it never sees a gap. All are looked at whenever half as many bytes were sent, and at least 32 for each connection: so much more may wait by then, and what the database sent in one go.',
    parse: whole(1_048_576, 16_384, LONGEST),
  }),
  shutdownTimeout: variable({
    name: 'PGWS_SHUTDOWN_TIMEOUT',
    default: '5000',
    sample: '5000',
    example: '5000',
    meaning:
      'Milliseconds to drain on SIGTERM or SIGINT: accepted messages go to the database, clients are closed with 1001, exit 0. With messages left that the database did not take: exit 1, and their number in the log.',
    parse: whole(5000, 0, LONGEST),
  }),
  reusePort: variable({
    name: 'PGWS_REUSE_PORT',
    default: 'False',
    sample: 'False',
    example: 'True',
    meaning: 'Several processes share the port, one for each core: the system spreads connections over them.',
    parse: boolean,
  }),
  logLevel: variable({
    name: 'PGWS_LOG_LEVEL',
    default: 'info',
    sample: 'info',
    example: 'warning',
    meaning: 'What goes to standard error: error, warning, info or debug, each with those before it.',
    parse: oneOf(['info', 'error', 'warning', 'debug'] as const),
  }),
  logClaim: variable({
    name: 'PGWS_LOG_CLAIM',
    default: 'unset',
    example: 'sub',
    meaning: 'The claim that says in the log who a client is, where it opens and closes. Unset shows none.',
    parse: logClaim,
  }),
  logFormat: variable({
    name: 'PGWS_LOG_FORMAT',
    default: 'text',
    sample: 'text',
    example: 'json',
    meaning: 'text or json, one line an event.',
    parse: oneOf(['text', 'json'] as const),
  }),
} as const
