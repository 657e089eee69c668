/** Owns the two forms of libpq's connection strings, a URI and keywords, and which keywords are supported. Pure. */
import { Fault } from '../fault.ts'

/** Every supported keyword, and the variable that is read where it is missing. */
export const keywords: Readonly<Record<string, string | undefined>> = {
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

/** The keywords that a connection string gives, with their values. @throws Fault that quotes no part of a password. */
export const parseConnectionString = (text: string): ReadonlyMap<string, string> =>
  /^postgres(ql)?:\/\//.test(text) ? parseUri(text) : parseKeywords(text)

/** `postgresql://[user[:password]@][host[:port][,…]][/dbname][?keyword=value[&…]]` */
function parseUri(text: string): Map<string, string> {
  const rest = text.slice(text.indexOf('://') + 3)
  const [, authority = '', path = '', query = ''] = /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(rest) ?? []
  // None of it is quoted, because it may be the end of a password.
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
 * Refuses a keyword that is not supported. Names it only where it cannot be part of a password: a password with a space in it, or a URI
 * with a misspelt beginning, is cut into pieces that look like keywords.
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

/** `keyword = value …`; a value with spaces stands in single quotes, and a backslash escapes the next character. */
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
