/**
 * Owns the configuration: one table of variables from which the parser, `--help`, `sample-env` and the README's table follow.
 * Pure: the environment and a reader of files are parameters. Every fault is reported at once, and none quotes a secret.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { type Conninfo, ConninfoFault, parseConninfo, type ReadFile } from './conninfo.ts'
import { type Key, KeyFault, readKeys } from './token.ts'

export type Environment = Readonly<Record<string, string | undefined>>

interface Variable<T> {
  readonly name: `PGWS_${string}`
  /** What stands in the README's and `--help`'s column for the default. */
  readonly default: string
  /** The value in `sample-env`; undefined leaves it commented out there, with `example`. */
  readonly sample?: string
  /** A value that works, for messages about one that does not. */
  readonly example: string
  /** One or more sentences. */
  readonly meaning: string
  /** The value of an unset (or empty) variable is undefined. @throws Fault */
  readonly parse: (text: string | undefined) => T
}

/** What is wrong with a variable's value, as a phrase that follows its name. */
class Fault extends Error {}

const variable = <T>(definition: Variable<T>): Variable<T> => definition

const text = (value: string | undefined): string | undefined => value

function required(value: string | undefined): string {
  if (value === undefined) throw new Fault('is not set')
  return value
}

const whole =
  <T>(otherwise: T, least: number, most: number) =>
  (value: string | undefined): number | T => {
    if (value === undefined) return otherwise
    const number = Number(value)
    if (!/^\s*\d+\s*$/.test(value) || number < least || number > most)
      throw new Fault(`is ${JSON.stringify(value)}, not a whole number from ${least} to ${most}`)
    return number
  }

function boolean(value: string | undefined): boolean {
  if (value === undefined || /^(false|0)$/i.test(value)) return false
  if (/^(true|1)$/i.test(value)) return true
  throw new Fault(`is ${JSON.stringify(value)}, neither True nor False`)
}

/** PostgreSQL cuts a longer identifier silently (manual, "Identifiers and Key Words"). */
const CHANNEL_BYTES = 63

const channel =
  <T>(otherwise: T) =>
  (value: string | undefined): string | T => {
    if (value === undefined) return otherwise
    const bytes = Buffer.byteLength(value)
    if (bytes > CHANNEL_BYTES)
      throw new Fault(`is ${bytes} bytes long, but PostgreSQL takes channel names of at most ${CHANNEL_BYTES}`)
    return value
  }

/** The longest delay of a timer, in milliseconds. */
const LONGEST = 2_147_483_647

export const variables = {
  databaseUri: variable({
    name: 'PGWS_DB_URI',
    default: 'required',
    sample: 'postgres://postgres:password@localhost:5432/postgres',
    example: 'postgres://user:password@localhost:5432/app',
    meaning:
      'How to reach PostgreSQL, as libpq takes it: a postgres:// URI or "host=… dbname=…" keywords; the PG* variables and the password file fill what is missing. @FILE reads it from a file.',
    parse: required,
  }),
  jwtSecret: variable({
    name: 'PGWS_JWT_SECRET',
    default: 'required',
    sample: 'auwhfdnskjhewfi34uwehdlaehsfkuaeiskjnfduierhfsiweskjcnzeiluwhskdewishdnpwe',
    example: '@/etc/postgres-websockets/jwt-secret',
    meaning:
      'The key that tokens are verified with: a secret of at least 32 bytes (HS256, HS384, HS512), a JWK, or a JWK set with oct, RSA, EC and OKP keys. @FILE reads it from a file, less one newline at its end.',
    parse: required,
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
    parse: (value) => value ?? '*4',
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
  metaChannel: variable({
    name: 'PGWS_META_CHANNEL',
    default: 'unset',
    sample: 'server-info',
    example: 'server-info',
    meaning: 'Channel for events about the server itself, such as ConnectionOpen.',
    parse: text,
  }),
  poolSize: variable({
    name: 'PGWS_POOL_SIZE',
    default: '10',
    sample: '10',
    example: '10',
    meaning:
      'Most connections used to send notifications, apart from the LISTEN connection. One is enough and one is used: PostgreSQL commits notifications one after the other, so messages go in batches.',
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
  shutdownTimeout: variable({
    name: 'PGWS_SHUTDOWN_TIMEOUT',
    default: '5000',
    sample: '5000',
    example: '5000',
    meaning:
      'Milliseconds to drain on SIGTERM or SIGINT: accepted messages go to the database, clients are closed with 1001, exit 0. With messages left that the database did not take: exit 1, and their number in the log.',
    parse: whole(5000, 0, LONGEST),
  }),
} as const

type Values = { readonly [K in keyof typeof variables]: ReturnType<(typeof variables)[K]['parse']> }

/** A configuration without fault. */
export interface Config extends Omit<Values, 'databaseUri' | 'jwtSecret' | 'jwtSecretIsBase64' | 'certificateFile' | 'keyFile'> {
  readonly database: Conninfo
  readonly keys: readonly Key[]
  readonly tls: { readonly cert: string; readonly key: string } | undefined
}

/** One line for each wrong variable: its name, the value's fault and an example. */
export type Faults = readonly string[]

/**
 * Reads the configuration from the environment.
 *
 * @param osUser the operating system's user, who is PostgreSQL's too unless one is named.
 */
export function parse(env: Environment, readFile: ReadFile, osUser: string): Config | { readonly faults: Faults } {
  const faults: string[] = []
  /** A variable's value by `make`; its fault goes to the list. */
  const attempt = <T>({ name, example }: Variable<unknown>, make: (given: string | undefined) => T): T | undefined => {
    try {
      return make(env[name] || undefined)
    } catch (error) {
      if (!(error instanceof Fault || error instanceof ConninfoFault || error instanceof KeyFault)) throw error
      faults.push(`${name} ${error.message}. For example: ${name}="${example}"`)
      return undefined
    }
  }
  const values = Object.fromEntries(Object.entries(variables).map(([key, entry]) => [key, attempt<unknown>(entry, entry.parse)]))

  const database = attempt(variables.databaseUri, (uri) => {
    if (uri === undefined) return undefined
    const text = uri.startsWith('@') ? new TextDecoder().decode(readAt(uri, readFile)).trim() : uri
    return parseConninfo(text, env, readFile, osUser)
  })
  const keys = attempt(variables.jwtSecret, (secret) => {
    if (secret === undefined) return undefined
    const bytes = secret.startsWith('@') ? lessNewline(readAt(secret, readFile)) : new TextEncoder().encode(secret)
    return readKeys(values.jwtSecretIsBase64 ? decodeBase64(bytes) : bytes)
  })
  const tls = readCertificate(env, readFile, attempt)
  if (faults.length > 0) return { faults }
  // Without a fault each parse function has returned, so every value has its type.
  return { ...(values as unknown as Values), database, keys, tls } as Config
}

type Attempt = <T>(entry: Variable<unknown>, make: (given: string | undefined) => T) => T | undefined

function readCertificate(env: Environment, readFile: ReadFile, attempt: Attempt): Config['tls'] {
  const pem = (path: string | undefined, other: Variable<unknown>): string | undefined => {
    if (path === undefined && env[other.name]) throw new Fault(`is not set, but ${other.name} is: they go together`)
    return path === undefined ? undefined : new TextDecoder().decode(readAt(`@${path}`, readFile))
  }
  const chain = attempt(variables.certificateFile, (path) => {
    const cert = pem(path, variables.keyFile)
    return cert === undefined ? undefined : { cert, leaf: faulty('has no PEM certificate', () => new X509Certificate(cert)) }
  })
  return attempt(variables.keyFile, (path) => {
    const key = pem(path, variables.certificateFile)
    if (key === undefined) return undefined
    const privateKey = faulty('has no PEM private key that is readable without a passphrase', () => createPrivateKey(key))
    if (chain && !chain.leaf.checkPrivateKey(privateKey)) throw new Fault('is not the key of the certificate')
    return chain && { cert: chain.cert, key }
  })
}

function faulty<T>(phrase: string, make: () => T): T {
  try {
    return make()
  } catch {
    throw new Fault(phrase)
  }
}

function readAt(reference: string, readFile: ReadFile): Uint8Array {
  const path = reference.slice(1)
  return faulty(`names the file ${JSON.stringify(path)}, which cannot be read`, () => readFile(path))
}

const lessNewline = (bytes: Uint8Array): Uint8Array => (bytes.at(-1) === 10 ? bytes.subarray(0, -1) : bytes)

function decodeBase64(bytes: Uint8Array): Uint8Array {
  const encoded = new TextDecoder().decode(bytes).trim().replaceAll('.', '=').replaceAll('-', '+').replaceAll('_', '/')
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(encoded)) throw new Fault('is not base64, but PGWS_JWT_SECRET_BASE64 is True')
  return Buffer.from(encoded, 'base64')
}
