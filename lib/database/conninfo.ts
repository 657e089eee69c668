/**
 * Owns where and how to connect: a connection string, with the `PG*` variables and libpq's defaults for what it leaves out (PostgreSQL
 * manual, "Connection Strings", "Parameter Key Words", "Environment Variables"). Pure: a reader of files is a parameter.
 */
import { Fault } from '../fault.ts'
import { keywords, parseConnectionString } from './connection-string.ts'
import { passwordFor } from './password-file.ts'

/** Reads a file whole. @throws when it cannot be read. */
export type ReadFile = (path: string) => Uint8Array

/** One place to try. */
export interface Host {
  /** A name or address to look up, or the path of a unix-domain socket. */
  readonly address: string
  /** Its name in certificates and in the password file. */
  readonly name: string
  readonly port: number
  readonly isSocket: boolean
  readonly password: string | undefined
}

export interface Conninfo {
  /** In the order to try them in. */
  readonly hosts: readonly Host[]
  readonly user: string
  readonly database: string
  readonly tls: Tls
  /** Milliseconds for one host. */
  readonly connectTimeout: number
  /** Seconds of silence before TCP probes the other side; 0 for never. */
  readonly keepalive: number
  readonly target: (typeof targets)[number]
  readonly shuffle: boolean
  /** Parameters of the protocol's startup message. */
  readonly startup: { readonly application_name: string; readonly options?: string }
}

export interface Tls {
  readonly mode: (typeof sslModes)[number]
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
}

export const place = (host: Host): string => (host.isSocket ? host.address : `${host.name}:${host.port}`)

const sslModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const
const targets = ['any', 'read-write', 'read-only', 'primary', 'standby', 'prefer-standby'] as const

/** Keywords that are accepted only with these values, which ask for what this program does anyway. */
const fixed: Readonly<Record<string, readonly string[]>> = {
  gssencmode: ['disable', 'prefer'],
  channel_binding: ['disable', 'prefer'],
  service: [],
  client_encoding: ['auto', 'utf8', 'utf-8', 'unicode'],
}

/** Where distributions and PostgreSQL's own builds put the unix-domain socket. */
const socketFolders = ['/var/run/postgresql', '/tmp']

/** Milliseconds. libpq waits for ever, but a host that never answers must not keep the server from the next one. */
const CONNECT_TIMEOUT = 10_000

/**
 * Reads a connection string.
 *
 * @param env the environment, for `PG*` and `HOME`.
 * @param osUser name of the operating system's user, libpq's default for `user`.
 * @throws Fault that names the keyword and what is wrong with its value.
 */
export function parseConninfo(
  text: string,
  env: Readonly<Record<string, string | undefined>>,
  readFile: ReadFile,
  osUser: string,
): Conninfo {
  const given = parseConnectionString(text)
  const value = (keyword: string): string | undefined => given.get(keyword) || env[keywords[keyword] ?? ''] || undefined
  const readText = (path: string): string | undefined => {
    try {
      return new TextDecoder().decode(readFile(path))
    } catch {
      return undefined
    }
  }

  for (const [keyword, allowed] of Object.entries(fixed)) {
    const asked = value(keyword)
    if (asked !== undefined && !allowed.includes(asked.toLowerCase()))
      throw new Fault(`${keyword}=${asked} cannot be honoured${allowed.length ? `: use ${allowed.join(' or ')}` : ''}`)
  }

  const user = value('user') ?? osUser
  const database = value('dbname') ?? user
  const passwordFile = value('passfile') ?? `${env.HOME ?? ''}/.pgpass`
  const passwordLines = value('password') === undefined ? (readText(passwordFile) ?? '').split(/\r?\n/) : []
  const idle = whole('keepalives_idle', value('keepalives_idle')) ?? 0
  const timeout = whole('connect_timeout', value('connect_timeout')) ?? 0
  const options = value('options')
  return {
    hosts: parseHosts(value).map((host) => ({
      ...host,
      password: value('password') ?? passwordFor(passwordLines, host.name, host.port, database, user),
    })),
    user,
    database,
    tls: parseTls(value, `${env.HOME ?? ''}/.postgresql`, readText),
    connectTimeout: timeout > 0 ? timeout * 1000 : CONNECT_TIMEOUT,
    keepalive: value('keepalives') === '0' ? 0 : idle || 60,
    target: oneOf('target_session_attrs', value('target_session_attrs') ?? 'any', targets),
    shuffle: oneOf('load_balance_hosts', value('load_balance_hosts') ?? 'disable', ['disable', 'random'] as const) === 'random',
    startup: {
      application_name: value('application_name') ?? value('fallback_application_name') ?? 'postgres-websockets',
      ...(options === undefined ? {} : { options }),
    },
  }
}

type Value = (keyword: string) => string | undefined

function parseHosts(value: Value): Omit<Host, 'password'>[] {
  const addresses = value('hostaddr')?.split(',')
  const names = value('host')?.split(',') ?? addresses?.map(() => '') ?? socketFolders
  const ports = value('port')?.split(',') ?? ['']
  if (addresses && addresses.length !== names.length)
    throw new Fault(`hostaddr lists ${addresses.length} places and host ${names.length}: they go together one by one`)
  if (ports.length !== 1 && ports.length !== names.length)
    throw new Fault(`port lists ${ports.length} ports for ${names.length} hosts: give one, or one for each`)
  return names.flatMap((name, index) => {
    const text = ports[ports.length === 1 ? 0 : index] || '5432'
    const port = Number(text)
    if (!/^\d+$/.test(text) || port < 1 || port > 65_535) throw new Fault('port is not a number between 1 and 65535')
    const address = addresses?.[index] || name
    const folders = address === '' ? socketFolders : [address]
    return folders.map((place) => {
      const isSocket = place.startsWith('/')
      return {
        address: isSocket ? `${place}/.s.PGSQL.${port}` : place,
        name: isSocket ? 'localhost' : name || place,
        port,
        isSocket,
      }
    })
  })
}

function parseTls(value: Value, folder: string, readText: (path: string) => string | undefined): Tls {
  const root = value('sslrootcert')
  const mode = oneOf('sslmode', value('sslmode') ?? (root === 'system' ? 'verify-full' : 'prefer'), sslModes)
  if (mode === 'disable') return { mode }
  const read = (keyword: string, otherwise: string): string | undefined => {
    const path = value(keyword)
    const text = readText(path ?? otherwise)
    if (path !== undefined && text === undefined) throw new Fault(`${keyword}: the file ${JSON.stringify(path)} cannot be read`)
    return text
  }
  if (root === 'system' && mode !== 'verify-full') throw new Fault(`sslrootcert=system needs sslmode=verify-full, not ${mode}`)
  const ca = root === 'system' ? undefined : read('sslrootcert', `${folder}/root.crt`)
  if (ca === undefined && root !== 'system' && mode.startsWith('verify'))
    throw new Fault(`sslmode=${mode} needs sslrootcert: a file of root certificates, or "system"`)
  const cert = read('sslcert', `${folder}/postgresql.crt`)
  const key = cert === undefined ? undefined : read('sslkey', `${folder}/postgresql.key`)
  if (cert !== undefined && key === undefined) throw new Fault('sslcert needs sslkey, the private key that belongs to it')
  return {
    // With root certificates at hand, `require` checks the chain (manual, "Client Verification of Server Certificates").
    mode: mode === 'require' && ca !== undefined ? 'verify-ca' : mode,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
  }
}

function oneOf<T extends string>(keyword: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((name) => name === text)
  if (found === undefined) throw new Fault(`${keyword}=${text} is unknown: use ${allowed.join(', ')}`)
  return found
}

function whole(keyword: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^-?\d+$/.test(text.trim())) throw new Fault(`${keyword}=${text} is not a whole number of seconds`)
  return Number(text)
}
