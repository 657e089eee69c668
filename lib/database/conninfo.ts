/**
 * Owns libpq's connection strings: a URI or keywords, with the `PG*` variables and libpq's defaults as fall-backs, become where
 * and how to connect (PostgreSQL manual, "Connection Strings", "Parameter Key Words", "Environment Variables"). Opens nothing.
 */
import { Fault } from '../fault.ts'

/** Reads a file whole. @throws when it cannot be read. */
export type ReadFile = (path: string) => Uint8Array

/** One place to try. */
export interface Host {
  /** A name or address to look up, or the path of a unix-domain socket. */
  readonly address: string
  /** What certificates and the password file know it by. */
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
  /** What the server is told at the start of a session. */
  readonly session: { readonly application_name: string; readonly options?: string }
}

export interface Tls {
  readonly mode: (typeof sslModes)[number]
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
}

const sslModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const
const targets = ['any', 'read-write', 'read-only', 'primary', 'standby', 'prefer-standby'] as const

/** Every keyword that is honoured, and the variable that stands in for it. */
const keywords: Readonly<Record<string, string | undefined>> = {
  host: 'PGHOST',
  hostaddr: 'PGHOSTADDR',
  port: 'PGPORT',
  dbname: 'PGDATABASE',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  passfile: 'PGPASSFILE',
  sslmode: 'PGSSLMODE',
  sslrootcert: 'PGSSLROOTCERT',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  application_name: 'PGAPPNAME',
  fallback_application_name: undefined,
  connect_timeout: 'PGCONNECT_TIMEOUT',
  keepalives: undefined,
  keepalives_idle: undefined,
  keepalives_interval: undefined,
  keepalives_count: undefined,
  target_session_attrs: 'PGTARGETSESSIONATTRS',
  load_balance_hosts: 'PGLOADBALANCEHOSTS',
  options: 'PGOPTIONS',
  client_encoding: 'PGCLIENTENCODING',
  gssencmode: 'PGGSSENCMODE',
  channel_binding: 'PGCHANNELBINDING',
  service: 'PGSERVICE',
}

/** Keywords of which only some values mean what this program does anyway. */
const fixed: Readonly<Record<string, readonly string[]>> = {
  gssencmode: ['disable', 'prefer'],
  channel_binding: ['disable', 'prefer'],
  service: [],
  client_encoding: ['auto', 'utf8', 'utf-8', 'unicode'],
}

/** Where distributions and PostgreSQL's own builds put the socket. */
const socketFolders = ['/var/run/postgresql', '/tmp']

/** Milliseconds; libpq waits for ever, but a host that swallows packets must not keep the server from the next one. */
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
  const given = /^postgres(ql)?:\/\//.test(text) ? parseUri(text) : parseKeywords(text)
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
    session: {
      application_name: value('application_name') ?? value('fallback_application_name') ?? 'postgres-websockets',
      ...(options === undefined ? {} : { options }),
    },
  }
}

/** `postgresql://[user[:password]@][host[:port][,…]][/dbname][?keyword=value[&…]]` */
function parseUri(text: string): Map<string, string> {
  const rest = text.slice(text.indexOf('://') + 3)
  const [, authority = '', path = '', query = ''] = /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(rest) ?? []
  // Named nowhere below, for it may be the end of a password.
  if (`${path}${query}`.includes('@'))
    throw new Fault('a "/", "?" or "@" in the user name or password is written %2F, %3F or %40')
  const at = authority.lastIndexOf('@')
  const [, user = '', password = ''] = /^([^:]*):?(.*)$/s.exec(authority.slice(0, Math.max(at, 0))) ?? []
  const hosts = authority.slice(at + 1).split(',')
  const places = hosts.map((host) => /^(\[[^\]]*\]|[^:[]*)(?::(.*))?$/.exec(host))
  if (places.includes(null))
    throw new Fault('a host of the URI is malformed: an IPv6 address stands in brackets, like [::1]:5432')
  const found = new Map<string, string>()
  const put = (keyword: string, encoded: string): void => {
    if (encoded !== '') found.set(keyword, decode(keyword, encoded))
  }
  put('user', user)
  put('password', password)
  put('dbname', path)
  const list = (part: 1 | 2): string => places.map((place) => place?.[part] ?? '').join(',')
  if (hosts.some((host) => host !== '')) {
    put('host', list(1).replaceAll(/[[\]]/g, ''))
    if (list(2).replaceAll(',', '') !== '') put('port', list(2))
  }
  let isBehindPassword = false
  for (const pair of query.split('&').filter((part) => part !== '')) {
    const [, keyword = '', encoded] = /^([^=]*)(?:=(.*))?$/s.exec(pair) ?? []
    if (keyword === 'ssl' && encoded === 'true') {
      found.set('sslmode', 'require')
      continue
    }
    const name = decode('a parameter', keyword)
    requireKnown(name, isBehindPassword)
    if (encoded === undefined) throw new Fault(`parameter ${JSON.stringify(name)} of the URI has no value`)
    found.set(name, decode(name, encoded))
    isBehindPassword ||= name === 'password'
  }
  return found
}

/**
 * Refuses a keyword that is not honoured, and names it only where it can be no part of a password: of one with a space in it, or of a
 * URI whose beginning is misspelt.
 */
function requireKnown(keyword: string, isBehindPassword: boolean): void {
  if (Object.hasOwn(keywords, keyword)) return
  if (isBehindPassword)
    throw new Fault(
      'a keyword behind the password is not supported: a value with spaces stands in single quotes, and in a URI "&" is written %26',
    )
  if (/^[a-z_]+$/i.test(keyword)) throw new Fault(`keyword ${JSON.stringify(keyword)} is not supported`)
  throw new Fault('is neither a URI that begins with postgres:// or postgresql:// nor keywords like host=… dbname=…')
}

function decode(keyword: string, encoded: string): string {
  try {
    return decodeURIComponent(encoded)
  } catch {
    throw new Fault(`${keyword} is not percent-encoded properly: a "%" itself is written %25`)
  }
}

/** `keyword = value …`; a value with spaces stands in single quotes, a backslash takes the next character as it is. */
function parseKeywords(text: string): Map<string, string> {
  const found = new Map<string, string>()
  const pair = /\s*([^\s=]+)\s*=\s*('(?:[^'\\]|\\.)*'(?=\s|$)|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|)(?:\s+|$)/suy
  while (pair.lastIndex < text.length) {
    const start = pair.lastIndex
    const [, keyword, quoted] = pair.exec(text) ?? []
    if (keyword === undefined || quoted === undefined) {
      const name = /^\s*([^\s=]*)\s*=/.exec(text.slice(start))?.[1]
      if (name !== undefined) requireKnown(name, found.has('password'))
      throw new Fault(
        name === undefined
          ? 'is neither a URI nor keywords: an "=" is missing after a keyword'
          : `the value of ${JSON.stringify(name)} has an unterminated quote`,
      )
    }
    requireKnown(keyword, found.has('password'))
    found.set(keyword, quoted.replace(/^'(.*)'$/s, '$1').replaceAll(/\\(.)/gs, '$1'))
  }
  return found
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

/** The password of the first line that matches; `*` matches anything, `\` takes the next character as it is (manual, "The Password File"). */
function passwordFor(lines: readonly string[], host: string, port: number, database: string, user: string): string | undefined {
  for (const line of lines) {
    if (line.startsWith('#')) continue
    const fields = line.match(/(?:[^:\\]|\\.)+|(?<=:)(?=:)/gs)?.map((field) => field.replaceAll(/\\(.)/gs, '$1')) ?? []
    const wanted = [host, String(port), database, user]
    if (fields.length >= 5 && wanted.every((text, index) => fields[index] === '*' || fields[index] === text)) return fields[4]
  }
  return undefined
}
