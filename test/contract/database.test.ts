import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { chmodSync, chownSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { connect, payloadOf } from '../support/client.ts'
import { fixture } from '../support/files.ts'
import { freePort, type Postgres, startPostgres } from '../support/postgres.ts'
import { type Environment, launch, start } from '../support/program.ts'
import { token } from '../support/token.ts'

const folder = mkdtempSync(join(tmpdir(), 'pgws-conninfo-'))

/** A server with TLS, and with users that may come only with it, only without it, or only with a certificate. */
let server: Postgres
let admin: postgres.Sql

beforeAll(async () => {
  server = await startPostgres()
  const { uid, gid } = { uid: process.getuid?.() === 0 ? 65534 : undefined, gid: 65534 }
  for (const name of ['server.crt', 'server.key', 'authority.crt']) {
    copyFileSync(fixture(name), join(server.dataFolder, name))
    chmodSync(join(server.dataFolder, name), 0o600)
    if (uid !== undefined) chownSync(join(server.dataFolder, name), uid, gid)
  }
  writeFileSync(
    join(server.dataFolder, 'pg_hba.conf'),
    `hostssl certdb postgres 127.0.0.1/32 cert
     host certdb all 127.0.0.1/32 reject
     hostssl all tlsonly 127.0.0.1/32 scram-sha-256
     hostnossl all plainonly 127.0.0.1/32 scram-sha-256
     host all postgres 127.0.0.1/32 scram-sha-256
     host all odd 127.0.0.1/32 scram-sha-256
     local all all scram-sha-256\n`,
  )
  admin = postgres(server.uri, { max: 1, onnotice: () => undefined })
  for (const setting of [
    "ssl_ca_file = 'authority.crt'",
    "ssl_cert_file = 'server.crt'",
    "ssl_key_file = 'server.key'",
    'ssl = on',
  ]) {
    await admin.unsafe(`alter system set ${setting}`)
  }
  await admin`select pg_reload_conf()`
  await admin`create database certdb`
  for (const user of ['tlsonly', 'plainonly']) await admin.unsafe(`create user ${user} password '${server.password}'`)
  await admin.unsafe(`create user odd password 'p@ss/w%rd?:#[ ]''\\'`)
  for (const name of ['client.key', 'client.crt']) copyFileSync(fixture(name), join(folder, name))
  writeFileSync(
    join(folder, 'pgpass'),
    `127.0.0.1:${server.port}:*:postgres:${server.password}\nlocalhost:${server.port}:*:postgres:${server.password}\n`,
    { mode: 0o600 },
  )
})
afterAll(async () => {
  await admin.end()
  await server.stop()
  rmSync(folder, { recursive: true })
})

/** Runs a message round through the program and returns what its log says of the session. */
async function round(env: Environment): Promise<string> {
  await using program = await start(env)
  await using client = await connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)
  client.send('x')
  expect(payloadOf(await client.next())).toBe('x')
  return program.stderr()
}

/** A connection string that does not work: the program's last words. */
async function failure(uri: string): Promise<string> {
  const program = launch({ PGWS_DB_URI: uri, PGWS_RETRIES: '1' })
  expect(await program.logged(/info: listening /).catch(() => program.exited)).toBe(1)
  expect(program.stderr()).not.toContain(server.password)
  return program.stderr()
}

const uri = (rest = '', host = '127.0.0.1') => `postgres://postgres:${server.password}@${host}:${server.port}/postgres${rest}`
const words = (rest = '') =>
  `host=127.0.0.1 port=${server.port} user=postgres password=${server.password} dbname=postgres ${rest}`

describe('a connection string', () => {
  test.each([
    ['a URI', () => uri()],
    ['a postgresql:// URI', () => uri().replace('postgres:', 'postgresql:')],
    ['keywords', () => words()],
    [
      'keywords with quotes',
      () => `host='127.0.0.1' port = ${server.port} user='postgres' password='${server.password}' dbname='postgres'`,
    ],
    [
      'a percent-encoded password',
      () => `postgres://odd:${encodeURIComponent("p@ss/w%rd?:#[ ]'\\")}@127.0.0.1:${server.port}/postgres`,
    ],
    ['a quoted password', () => `host=127.0.0.1 port=${server.port} user=odd password='p@ss/w%rd?:#[ ]\\'\\\\' dbname=postgres`],
    [
      'a socket in a URI',
      () => `postgres://postgres:${server.password}@${encodeURIComponent(server.socketFolder)}:${server.port}/postgres`,
    ],
    [
      'a socket as a parameter',
      () => `postgres:///postgres?host=${server.socketFolder}&port=${server.port}&user=postgres&password=${server.password}`,
    ],
    ['a socket in keywords', () => `host=${server.socketFolder} port=${server.port} user=postgres password=${server.password}`],
    ['an address beside a name', () => words('hostaddr=127.0.0.1').replace('host=127.0.0.1', 'host=no.such.name.invalid')],
    ['a name', () => uri('', 'localhost')],
    ['a password file', () => `postgres://postgres@127.0.0.1:${server.port}/postgres?passfile=${folder}/pgpass`],
    [
      'options and a name for the application',
      () => uri('?options=-c%20search_path%3Dx&application_name=my%20app&keepalives_idle=9&connect_timeout=5'),
    ],
  ])('as %s', async (_, text) => {
    await round({ PGWS_DB_URI: text() })
  })
  test('in a file', async () => {
    writeFileSync(join(folder, 'uri'), `\n ${uri()} \n`)
    await round({ PGWS_DB_URI: `@${folder}/uri` })
  })
  test('filled from the PG variables', async () => {
    const variables = {
      PGHOST: '127.0.0.1',
      PGPORT: String(server.port),
      PGUSER: 'postgres',
      PGPASSWORD: server.password,
      PGDATABASE: 'postgres',
    }
    await round({ PGWS_DB_URI: 'postgres://', ...variables, PGMAX: '0', PGSSLMODE: 'disable', PGTARGETSESSIONATTRS: 'any' })
  })
  test('with the password file of the home folder, over a socket', async () => {
    writeFileSync(join(folder, '.pgpass'), `localhost:*:*:postgres:${server.password}\n`, { mode: 0o600 })
    await round({ PGWS_DB_URI: `host=${server.socketFolder} port=${server.port} user=postgres`, HOME: folder })
  })
  test('with options and application_name reaches the session as it says', async () => {
    await using _program = await start({ PGWS_DB_URI: uri('?application_name=my%20app&options=-c%20work_mem%3D7MB') })
    const [found] = await admin`select count(*)::int as sessions from pg_stat_activity where application_name = 'my app'`
    expect(found?.sessions).toBe(2)
  })
  test('of which the password is wrong fails without telling it', async () => {
    expect(await failure(uri().replace(server.password, 'wrong-password'))).toMatch(/password authentication failed for user/)
    expect(await failure(uri().replace(server.password, 'wrong-password'))).not.toContain('wrong-password')
  })
})

describe('several hosts', () => {
  test('are tried in order until one takes the session', async () => {
    const dead = await freePort()
    const list = `127.0.0.1:${dead},no.such.name.invalid:5432,127.0.0.1:${server.port}`
    expect(await round({ PGWS_DB_URI: `postgres://postgres:${server.password}@${list}/postgres` })).toContain(
      `server=127.0.0.1:${server.port}`,
    )
    await round({ PGWS_DB_URI: `postgres://postgres:${server.password}@${list}/postgres?load_balance_hosts=random` })
    await round({ PGWS_DB_URI: `host=127.0.0.1,127.0.0.1 port=${dead},${server.port} user=postgres password=${server.password}` })
  })
  test('are chosen by target_session_attrs', async () => {
    for (const target of ['any', 'read-write', 'primary', 'prefer-standby'])
      await round({ PGWS_DB_URI: uri(`?target_session_attrs=${target}`) })
    expect(await failure(uri('?target_session_attrs=standby'))).toContain('is a primary, but target_session_attrs=standby')
    expect(await failure(uri('?target_session_attrs=read-only'))).toContain('is read-write, but target_session_attrs=read-only')
  })
  test('that swallow packets are given up after connect_timeout', async () => {
    const silent = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data: () => undefined } })
    const began = Date.now()
    const list = `127.0.0.1:${silent.port},127.0.0.1:${server.port}`
    await round({ PGWS_DB_URI: `postgres://postgres:${server.password}@${list}/postgres?connect_timeout=1&sslmode=disable` })
    expect(Date.now() - began).toBeLessThan(8000)
    silent.stop(true)
  })
})

describe('sslmode', () => {
  const as = (user: string, rest: string) => uri(rest).replace('//postgres', `//${user}`)
  test.each([
    ['disable', false],
    ['allow', false],
    ['prefer', true],
    ['require', true],
  ])('%s encrypts where both are to be had: %p', async (mode, encrypted) => {
    expect(await round({ PGWS_DB_URI: uri(`?sslmode=${mode}`) })).toContain(`tls=${encrypted}`)
  })
  test('defaults to prefer', async () => expect(await round({ PGWS_DB_URI: uri() })).toContain('tls=true'))
  test('allow and prefer turn to what the server takes', async () => {
    expect(await round({ PGWS_DB_URI: as('tlsonly', '?sslmode=allow') })).toContain('tls=true')
    expect(await round({ PGWS_DB_URI: as('plainonly', '?sslmode=prefer') })).toContain('tls=false')
    expect(await failure(as('tlsonly', '?sslmode=disable'))).toContain('no encryption')
    expect(await failure(as('plainonly', '?sslmode=require'))).toContain('SSL encryption')
  })
  test('verify-ca and verify-full check the chain, verify-full the name too', async () => {
    const ca = `sslrootcert=${fixture('authority.crt')}`
    for (const mode of ['verify-ca', 'verify-full'])
      expect(await round({ PGWS_DB_URI: uri(`?sslmode=${mode}&${ca}`, 'localhost') })).toContain('tls=true')
    expect(await round({ PGWS_DB_URI: uri(`?sslmode=verify-ca&${ca}`) })).toContain('tls=true')
    expect(await failure(uri(`?sslmode=verify-full&${ca}`))).toMatch(/altnames|IP|does not match/i)
    for (const mode of ['verify-ca', 'verify-full', 'require']) {
      expect(await failure(uri(`?sslmode=${mode}&sslrootcert=${fixture('stranger.crt')}`, 'localhost'))).toMatch(/certificate/i)
    }
    expect(await failure(uri('?sslrootcert=system', 'localhost'))).toMatch(/certificate/i)
  })
  test('shows a client certificate where the server asks for one', async () => {
    const certificate = `sslcert=${folder}/client.crt&sslkey=${folder}/client.key`
    const text = `postgres://postgres@localhost:${server.port}/certdb?sslmode=verify-full&sslrootcert=${fixture('authority.crt')}`
    expect(await round({ PGWS_DB_URI: `${text}&${certificate}` })).toContain('tls=true')
    expect(await failure(text)).toMatch(/certificate/i)
  })
})

test.each([['sslcrl=x'], ['gssencmode=require'], ['channel_binding=require'], ['service=mine'], ['sslmode=maybe']])(
  '%s cannot be honoured and is a fault that names it',
  async (pair) => expect(await failure(uri(`?${pair}`))).toContain(pair.split('=')[0] ?? ''),
)
