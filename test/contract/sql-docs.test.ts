/** The pages about SQL and tokens do what they say: their blocks are run as they stand there. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import postgres from 'postgres'
import { connect } from '../support/client.ts'
import { blocksFor } from '../support/pages.ts'
import { launch, type Program, start } from '../support/program.ts'
import { installPsql } from '../support/psql.ts'
import { database } from '../support/setup.ts'
import { secret, token } from '../support/token.ts'
import { until } from '../support/until.ts'

const root = resolve(import.meta.dir, '../..')
const { block, left } = blocksFor('sql-docs')

let program: Program
let admin: postgres.Sql
const uri = () => database().uri.replace(/postgres$/, 'readme')

beforeAll(async () => {
  const first = postgres(database().uri, { max: 1 })
  await first`create database readme`
  await first.end()
  admin = postgres(uri(), { max: 1, onnotice: () => undefined })
  program = await start({ PGWS_DB_URI: uri() })
})
afterAll(async () => {
  await admin.end()
  await program.stop()
})

test('the trigger tells of each row written, with its operation and key, however large the row is', async () => {
  await admin.unsafe(block('sql', 'create trigger'))
  await using client = await connect(`${program.origin}/orders/${await token({ mode: 'r' })}`)
  await admin`insert into orders (item) values (${'tea'.repeat(10_000)})`
  await admin`update orders set item = ${'coffee'.repeat(10_000)}`
  await admin`delete from orders`
  const payloads = (await client.take(3)).map((message) => JSON.parse(message).payload)
  expect(payloads).toEqual(['INSERT', 'UPDATE', 'DELETE'].map((operation) => ({ operation, id: 1 })))
})

test('the statement sends from SQL', async () => {
  await using client = await connect(`${program.origin}/chat/${await token({ mode: 'r' })}`)
  await admin.unsafe(block('sql', 'hello from SQL'))
  expect(JSON.parse(await client.next())).toEqual({ event: 'WebsocketMessage', channel: 'chat', payload: 'hello from SQL' })
})

describe('the function of PostgREST', () => {
  const roles = ['web_anon', 'web_user', 'stranger']
  /** Runs a statement as PostgREST does for a request: as the token's role, with its claims. */
  const as = (role: string, claims: string | undefined, statement: string) =>
    admin.begin(async (sql) => {
      if (claims !== undefined) await sql`select set_config('request.jwt.claims', ${claims}, true)`
      await sql.unsafe(`set local role ${role}`)
      return [...(await sql.unsafe(statement))]
    })

  beforeAll(async () => {
    await admin`create schema api`
    for (const role of roles) await admin.unsafe(`create role ${role}; grant usage on schema api to ${role}`)
    await admin.unsafe(block('sql', 'websocket_token'))
  })

  test('stands in a file of its own too', () => {
    expect(block('sql', 'websocket_token')).toBe(readFileSync(join(root, 'deploy/token.sql'), 'utf8'))
  })

  test('makes a secret, which only its owner can read in the file for the servers', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'pgws-secret-'))
    const env = { ...process.env, PATH: `${installPsql(folder)}:${process.env.PATH}`, PGWS_DB_URI: uri() }
    expect(spawnSync('sh', ['-ec', block('sh', 'jwt-secret')], { cwd: folder, env, encoding: 'utf8' })).toMatchObject({
      status: 0,
    })
    const [row] = await admin`select value from websockets.secret`
    expect(readFileSync(join(folder, 'jwt-secret'), 'utf8')).toBe(`${row?.value}\n`)
    expect(row?.value).toHaveLength(64)
    expect(statSync(join(folder, 'jwt-secret')).mode & 0o777).toBe(0o600)
    rmSync(folder, { recursive: true })
    // From here on, the one that the server has.
    await admin`update websockets.secret set value = ${secret}`
  })

  test('issues tokens to who is logged in', async () => {
    const [row] = await as('web_user', '{"sub":"ada"}', `select api.websocket_token() ->> 'token' as token`)
    await using client = await connect(`${program.origin}/${row?.token}`)
    client.send('signed by SQL')
    expect(JSON.parse(await client.next())).toMatchObject({ claims: { sub: 'ada' }, channel: 'chat', payload: 'signed by SQL' })
  })

  test.each(['', '{}', undefined])('issues none, and raises nothing, for the claims %p', async (claims) => {
    const [row] = await as('web_user', claims, 'select api.websocket_token() as token')
    expect(row?.token).toBeNull()
  })

  test.each(['web_anon', 'stranger'])('issues none to %s', async (role) => {
    const issued = as(role, '{"sub":"ada"}', 'select api.websocket_token()')
    await expect(issued).rejects.toThrow('permission denied for function websocket_token')
  })

  test.each(roles)('shows its secret to nobody: %s can neither read it nor sign with it', async (role) => {
    for (const statement of [`select * from websockets.secret`, `select websockets.sign('{}')`])
      await expect(as(role, '{"sub":"ada"}', statement)).rejects.toThrow('permission denied for schema websockets')
    const settings = `select rolconfig::text as value from pg_roles union all select setting from pg_settings`
    const seen = await as(role, '{"sub":"ada"}', settings)
    expect(seen.filter(({ value }) => String(value).includes(secret))).toEqual([])
  })

  test('calls no function of who calls it', async () => {
    await admin.unsafe(`create schema trap; grant all on schema trap to web_user`)
    await as('web_user', undefined, `create function trap.sign(claims json) returns text language sql as 'select session_user'`)
    const [row] = await as(
      'web_user',
      '{"sub":"ada"}',
      `select set_config('search_path', 'trap', true), api.websocket_token() ->> 'token' as token`,
    )
    expect(String(row?.token)).toStartWith('ey')
  })
})

describe('the consumer', () => {
  const folder = join(root, 'dist', 'consumer-test')
  beforeAll(() => {
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'consumer.mjs'), block('js', 'consumer.mjs'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  /** A URI, and keywords over TCP and over a unix-domain socket whose folder PGHOST names. */
  const forms: Record<string, () => Record<string, string>> = {
    'a URI': () => ({ PGWS_DB_URI: uri() }),
    keywords: () => ({
      PGWS_DB_URI: `host=127.0.0.1 port=${database().port} dbname=readme user=postgres password='${database().password}'`,
    }),
    'the name of a database': () => ({
      PGWS_DB_URI: 'dbname=readme',
      PGHOST: database().socketFolder,
      PGPORT: String(database().port),
      PGUSER: 'postgres',
      PGPASSWORD: database().password,
    }),
  }

  test.each(Object.keys(forms))(
    'stores what clients send, long or short, with %s, and survives what is no JSON',
    async (form) => {
      await using consumer = launch(forms[form]?.() ?? {}, [join(folder, 'consumer.mjs')], 'node')
      await consumer.printed(/storing messages/)
      await admin`truncate messages`
      for (const text of ['no JSON', 'null', '7', '{"event":"WebsocketMessage"}'])
        await admin`select pg_notify('postgres-websockets-listener', ${text})`
      await using client = await connect(`${program.origin}/chat/${await token({ mode: 'w', sub: 'ada' })}`)
      const long = randomBytes(3500).toString('hex')
      client.send(long)
      client.send('to be stored')
      const rows = async () => [...(await admin`select channel, sender ->> 'sub' as sub, payload from messages order by sent_at`)]
      await until(async () => (await rows()).length >= 2)
      expect(await rows()).toEqual([long, 'to be stored'].map((payload) => ({ channel: 'chat', sub: 'ada', payload })))
    },
  )
})

test('each block for this test was run', () => expect(left()).toEqual([]))
