import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { parseConninfo } from '../../lib/database/conninfo.ts'
import { createDatabase } from '../../lib/database/database.ts'
import { type Client, connect, handshake } from '../support/client.ts'
import { endBackends } from '../support/faults.ts'
import { createLedger } from '../support/ledger.ts'
import { DIRECT, openReader, settledTruth, startSql } from '../support/load.ts'
import { residentBytes } from '../support/memory.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { startProxy, uriThrough } from '../support/proxy.ts'
import { token } from '../support/token.ts'
import { startWitness, WITNESSED, type Witness } from '../support/witness.ts'

let server: Postgres
let witness: Witness
let admin: postgres.Sql
beforeAll(async () => {
  server = await startPostgres({ settings: WITNESSED })
  witness = await startWitness(server)
  admin = postgres(server.uri, { max: 1, onnotice: () => undefined })
  await admin.unsafe(`create database latin encoding 'LATIN1' locale 'C' template template0`)
})
beforeEach(() => witness.clear())
afterAll(async () => {
  await admin.end()
  await server.stop()
})

const env = () => ({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: '1000', PGWS_DATABASE_CHANNELS: '*' })
const named = (prefix: string, count: number): string[] => Array.from({ length: count }, (_, index) => `${prefix}${index}`)
const urlFor = async ({ origin }: Program, channels: readonly string[]): Promise<string> =>
  `${origin}/${await token({ mode: 'r', channels: [...channels] })}`

/** Ends the LISTEN session and waits until another stands. @returns the milliseconds that took. */
async function loseListener(program: Program): Promise<number> {
  const before = program.stderr().length
  const began = Date.now()
  await endBackends(server, 'listening')
  await program.logged(/listening again/, before)
  return Date.now() - began
}

test.each([50, 800])('of %i database channels each missing message lies in a window of its channel', async (count) => {
  await using program = await start(env())
  const channels = named(DIRECT, count)
  const ledger = createLedger()
  const readers = await Promise.all(
    [1, 2].map(async () => openReader(await urlFor(program, channels), channels, ledger, witness)),
  )
  const senders = named('sql-', 4).map((name) => startSql(server.uri, channels, name, ledger, { handful: 10, pace: 1 }))
  for (let round = 0; round < 10; round++) {
    await Bun.sleep(100)
    await loseListener(program)
  }
  await Promise.all([...senders, ...readers].map((one) => one.stop()))
  const { lost, changed, disordered, told, delivered } = ledger.judge(await settledTruth(ledger, witness))
  expect({ lost, changed, disordered }).toEqual({ lost: [], changed: [], disordered: [] })
  expect(delivered).toBeGreaterThan(1000)
  expect(told).toBeGreaterThan(0)
})

describe('in a database whose encoding lacks a character', () => {
  const latin = (): string => server.uri.replace(/postgres$/, 'latin')
  const path = async (channel: string): Promise<string> => `/${encodeURIComponent(channel)}/${await token({ mode: 'r' })}`

  async function hears(client: Client, uri: string, channel: string): Promise<void> {
    const sql = postgres(uri, { max: 1 })
    await sql.notify(channel, 'hello')
    await sql.end()
    expect(await client.next()).toBe('hello')
  }

  test('a channel with it in its name is refused, and keeps the listener from healing for nobody', async () => {
    await using program = await start({ ...env(), PGWS_DB_URI: latin() })
    await using client = await connect(`${program.origin}${await path('chat')}`)
    expect((await handshake(program.port, await path('☃'))).status).toBe(503)
    await hears(client, latin(), 'chat')
    for (let round = 0; round < 2; round++) {
      expect(await loseListener(program)).toBeLessThan(3000)
      await hears(client, latin(), 'chat')
    }
  })

  test('its readers are closed with 1011 where the listener heals into it, and others stay', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'pgws-channels-'))
    const file = join(folder, 'uri')
    writeFileSync(file, server.uri)
    await using program = await start({ ...env(), PGWS_DB_URI: `@${file}` })
    await using client = await connect(`${program.origin}${await path('chat')}`)
    await using snowman = await connect(`${program.origin}${await path('☃')}`)
    await hears(snowman, server.uri, '☃')
    writeFileSync(file, latin())
    const before = program.stderr().length
    program.signal('SIGHUP')
    await program.logged(/configuration files read again/, before)
    await loseListener(program)
    expect((await snowman.closed).code).toBe(1011)
    await hears(client, latin(), 'chat')
    rmSync(folder, { recursive: true })
  })
})

test('what is tried for a channel is undone for that one alone, whatever else is listened to meanwhile', async () => {
  const conninfo = parseConninfo(server.uri, {}, readFileSync, '')
  const session = await createDatabase(() => conninfo, 0).connectListening('first', () => undefined)
  const tried = session.tryListen(['tried'])
  const listened = session.listen(['kept'], () => undefined)
  await Promise.all([tried, listened])
  const rows = await session.query('select pg_listening_channels() as name')
  expect(rows.map(({ name }) => name).sort()).toEqual(['first', 'kept'])
  session.close()
})

test('above PGWS_MAX_DATABASE_CHANNELS an upgrade that needs another gets 503, and those that share theirs come in', async () => {
  await using program = await start({ ...env(), PGWS_MAX_DATABASE_CHANNELS: '100' })
  const asked = async (channels: readonly string[]): Promise<number> =>
    (await handshake(program.port, new URL(await urlFor(program, channels)).pathname)).status
  await using _reader = await connect(await urlFor(program, named('a', 60)))
  expect(await asked(named('b', 60))).toBe(503)
  expect(await asked(named('a', 50))).toBe(101)
  await using _other = await connect(await urlFor(program, named('c', 40)))
  expect(await asked(['d'])).toBe(503)
})

test('while a client that is refused one channel waits for another, that one is refused to others too', async () => {
  using proxy = await startProxy(server.port)
  await using program = await start({
    PGWS_DB_URI: uriThrough(server, proxy),
    PGWS_DATABASE_CHANNELS: '*',
    PGWS_MAX_DATABASE_CHANNELS: '2',
  })
  const asked = async (channels: readonly string[]): Promise<number> =>
    (await handshake(program.port, new URL(await urlFor(program, channels)).pathname)).status
  await using first = await connect(await urlFor(program, ['first']))
  proxy.links('listening')[0]?.delay(500)
  let isAnswered = false
  const waiting = asked(['waited-for', 'above']).finally(() => {
    isAnswered = true
  })
  await Bun.sleep(100)
  await first.close()
  expect(await asked(['above'])).toBe(503)
  expect(isAnswered).toBe(false)
  expect(await waiting).toBe(503)
  expect(await asked(['above'])).toBe(101)
})

test('of clients of 1,000 database channels each ten are taken, and healed within seconds and in moderate memory', async () => {
  await using program = await start(env())
  const clients: Client[] = []
  for (let index = 0; index < 10; index++) clients.push(await connect(await urlFor(program, named(`${index}-`, 1000))))
  for (let index = 10; index < 20; index++) {
    const { pathname } = new URL(await urlFor(program, named(`${index}-`, 1000)))
    expect((await handshake(program.port, pathname)).status).toBe(503)
  }
  expect(await loseListener(program)).toBeLessThan(5000)
  for (const [index, client] of clients.entries()) {
    await admin.notify(`${index}-999`, 'hello')
    expect(await client.next()).toBe('hello')
  }
  expect(residentBytes(program.pid)).toBeLessThan(300_000 * 1024)
  await Promise.all(clients.map((client) => client.close()))
})
