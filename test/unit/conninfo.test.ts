import { describe, expect, test } from 'bun:test'
import { resolve } from 'node:path'
import { parseConninfo } from '../../lib/database/conninfo.ts'
import { Fault } from '../../lib/fault.ts'

const files: Record<string, string> = {
  '/home/me/.pgpass':
    '# comment\nother:5432:app:me:no\ndb.example:5432:app:me:from-pgpass\nlocalhost:*:*:me:for\\:sockets\\\\\n*:*:*:nobody:last\n',
  '/pass': 'h1:1:app:me:one\nh2:2:app:me:two\n',
}
const readFile = (path: string): Uint8Array => {
  const text = files[path]
  if (text === undefined) throw new Error('ENOENT')
  return new TextEncoder().encode(text)
}
const parse = (text: string, env: Record<string, string> = {}) =>
  parseConninfo(text, { HOME: '/home/me', ...env }, readFile, 'me')

/** Where it leads, as `user:password@name(address):port/database` for each host. */
const summary = (text: string, env: Record<string, string> = {}): string => {
  const { hosts, user, database } = parse(text, env)
  return hosts
    .map(
      ({ name, address, port, password }) =>
        `${user}:${password ?? ''}@${name === address ? '' : name}(${address}):${port}/${database}`,
    )
    .join(' ')
}

describe('a connection string', () => {
  test.each([
    ['postgres://u:p@h/d', 'u:p@(h):5432/d'],
    ['postgresql://u:p@h:99/d', 'u:p@(h):99/d'],
    ['postgres://u@h', 'u:@(h):5432/u'],
    ['postgres://h/d', 'me:@(h):5432/d'],
    ['postgres://u:p%40%2F%25%20@h/d%20e', 'u:p@/% @(h):5432/d e'],
    ['postgres://u@[::1]:7/d', 'u:@(::1):7/d'],
    ['postgres://u:p@h1:1,h2,[::2]:3/d', 'u:p@(h1):1/d u:p@(h2):5432/d u:p@(::2):3/d'],
    ['postgres://u:p@%2Fvar%2Frun:99/d', 'u:p@localhost(/var/run/.s.PGSQL.99):99/d'],
    ['postgres:///d?host=/sockets&user=u', 'u:@localhost(/sockets/.s.PGSQL.5432):5432/d'],
    ['postgres://u@h/d?host=x&port=8', 'u:@(x):8/d'],
    ['postgres://u@h/?dbname=other', 'u:@(h):5432/other'],
    ['host=h dbname=d user=u password=p', 'u:p@(h):5432/d'],
    ["  host = h   dbname='my db' user=u password='it\\'s \\\\'  ", "u:it's \\@(h):5432/my db"],
    ['host=h dbname=d password=a\\ b', 'me:a b@(h):5432/d'],
    ['host=a,b port=1,2 user=u password=p dbname=d', 'u:p@(a):1/d u:p@(b):2/d'],
    ['host=a,b port=7 user=u dbname=d', 'u:@(a):7/d u:@(b):7/d'],
    ['host=name hostaddr=127.0.0.9 user=u dbname=d', 'u:@name(127.0.0.9):5432/d'],
    ['hostaddr=127.0.0.9 user=u dbname=d', 'u:@(127.0.0.9):5432/d'],
    ['host=/run/pg dbname=d user=u', 'u:@localhost(/run/pg/.s.PGSQL.5432):5432/d'],
  ])('%s', (text, expected) => expect(summary(text)).toBe(expected))

  test('is filled from the PG variables, which it wins over', () => {
    const env = { PGHOST: 'eh', PGPORT: '9', PGUSER: 'eu', PGPASSWORD: 'ep', PGDATABASE: 'ed', PGAPPNAME: 'app' }
    expect(summary('postgres://', env)).toBe('eu:ep@(eh):9/ed')
    expect(summary('postgres://u:p@h:1/d', env)).toBe('u:p@(h):1/d')
    expect(parse('postgres://', env).startup.application_name).toBe('app')
  })
  test('without host tries the socket folders', () => {
    expect(parse('dbname=d').hosts.map(({ address }) => address)).toEqual([
      '/var/run/postgresql/.s.PGSQL.5432',
      '/tmp/.s.PGSQL.5432',
    ])
  })
  test('without password takes it from the password file, by host, port, database and user', () => {
    expect(summary('postgres://me@db.example/app')).toBe('me:from-pgpass@(db.example):5432/app')
    expect(summary('host=/run/pg user=me')).toContain('me:for:sockets\\@localhost')
    expect(summary('postgres://nobody@h/d')).toContain('nobody:last@')
    expect(summary('host=h1,h2 port=1,2 user=me dbname=app passfile=/pass')).toBe('me:one@(h1):1/app me:two@(h2):2/app')
    expect(summary('postgres://me@h1:1/app', { PGPASSFILE: '/pass' })).toContain('me:one@')
  })
  test('names the application, with a fall-back', () => {
    expect(parse('postgres://h').startup).toEqual({ application_name: 'postgres-websockets' })
    expect(parse('postgres://h?application_name=x&options=-c%20a=b').startup).toEqual({
      application_name: 'x',
      options: '-c a=b',
    })
    expect(parse('postgres://h?fallback_application_name=y').startup.application_name).toBe('y')
  })
  test('sets times', () => {
    expect(parse('postgres://h')).toMatchObject({ connectTimeout: 10_000, keepalive: 60 })
    expect(parse('postgres://h?connect_timeout=3&keepalives_idle=5')).toMatchObject({ connectTimeout: 3000, keepalive: 5 })
    expect(parse('postgres://h?keepalives=0&connect_timeout=0')).toMatchObject({ connectTimeout: 10_000, keepalive: 0 })
  })
  test('chooses servers', () => {
    expect(parse('postgres://h')).toMatchObject({ target: 'any', shuffle: false })
    expect(parse('postgres://h?target_session_attrs=read-write&load_balance_hosts=random')).toMatchObject({
      target: 'read-write',
      shuffle: true,
    })
  })
})

describe('TLS', () => {
  const certificates = resolve(import.meta.dir, '../fixtures')
  files['/root.crt'] = 'CA'
  files['/client.crt'] = 'CERT'
  files['/client.key'] = 'KEY'
  test('is preferred', () => expect(parse('postgres://h').tls).toEqual({ mode: 'prefer' }))
  test.each([['disable'], ['allow'], ['require']])('takes %s', (mode) =>
    expect(parse(`postgres://h?sslmode=${mode}`).tls.mode).toBe(mode as 'allow'),
  )
  test('takes the mode of JDBC', () => expect(parse('postgres://h?ssl=true').tls.mode).toBe('require'))
  test('verifies with a root certificate', () => {
    expect(parse('postgres://h?sslmode=verify-full&sslrootcert=/root.crt').tls).toEqual({ mode: 'verify-full', ca: 'CA' })
    expect(parse('postgres://h?sslmode=require&sslrootcert=/root.crt').tls).toEqual({ mode: 'verify-ca', ca: 'CA' })
    expect(parse('postgres://h?sslrootcert=system').tls).toEqual({ mode: 'verify-full' })
  })
  test('shows a client certificate', () => {
    expect(parse('postgres://h?sslcert=/client.crt&sslkey=/client.key').tls).toEqual({ mode: 'prefer', cert: 'CERT', key: 'KEY' })
  })
  test('of a file that is missing is a fault', () => {
    expect(() => parse(`postgres://h?sslmode=verify-ca&sslrootcert=${certificates}/none`)).toThrow('sslrootcert')
    expect(() => parse('postgres://h?sslmode=verify-ca')).toThrow('needs sslrootcert')
    expect(() => parse('postgres://h?sslcert=/client.crt')).toThrow('sslkey')
    expect(() => parse('postgres://h?sslmode=require&sslrootcert=system')).toThrow('verify-full')
  })
})

describe('a fault', () => {
  test.each([
    ['postgres://h?sslcrl=x', 'sslcrl'],
    ['postgres://h?constructor=x', 'constructor'],
    ['postgres://h?gssencmode=require', 'gssencmode=require'],
    ['postgres://h?channel_binding=require', 'channel_binding=require'],
    ['service=mine', 'service=mine'],
    ['postgres://h?client_encoding=LATIN1', 'client_encoding=LATIN1'],
    ['postgres://h?sslmode=on', 'sslmode=on'],
    ['postgres://h?target_session_attrs=best', 'target_session_attrs=best'],
    ['postgres://h?connect_timeout=soon', 'connect_timeout=soon'],
    ['postgres://h:0/d', 'port'],
    ['postgres://h:70000/d', 'port'],
    ['host=a,b port=1,2,3', 'port lists 3'],
    ['host=a,b hostaddr=127.0.0.1', 'hostaddr lists 1'],
    ['postgres://[::1/d', 'IPv6'],
    ['postgres://h?x', '"x" is not supported'],
    ['postgres://h?user', 'no value'],
    ['passwort=x', '"passwort" is not supported'],
    ['user=x colour=y', '"colour" is not supported'],
    ['postgres://h/%zz', 'percent-encoded'],
    ['just text', 'neither a URI nor keywords'],
    ["host='h", 'unterminated quote'],
  ])('of %s names %s', (text, expected) => {
    expect(() => parse(text)).toThrow(Fault)
    expect(() => parse(text)).toThrow(expected)
  })
  test('of an environment variable is one too', () => expect(() => parse('postgres://h', { PGSERVICE: 'x' })).toThrow('service'))
  test.each([
    ['postgres://u:sec/ret@h/d'],
    ['postgres://u:sec?ret=1@h/d'],
    ['postgres://u:sec:ret%@h/d'],
    ['postgres://u:sec#ret@h:x/d'],
    ['password=hun sec=3'],
    ['password=hun ret2=3 dbname=app'],
    ["password=hun sec='3"],
    ["password='it''s sec=ret"],
    ['password=hun\\ x sec=3'],
    ['postgres://h?password=hun&sec=3'],
    ['postgres://h?password=hun&sec'],
    ['postgres://h?password=hun&sec%=3'],
    ['postgress://u:sec=ret@h/d'],
    ['postgress://u:sec@h/ret?sslmode=require'],
    ['mysec-ret=x'],
  ])('of %s tells no part of the password', (text) => {
    let message = ''
    try {
      parse(text)
    } catch (error) {
      message = String(error)
    }
    expect(message).not.toBe('')
    expect(message).not.toMatch(/sec|ret/)
  })
})
