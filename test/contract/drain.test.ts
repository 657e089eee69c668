import { afterAll, beforeAll, expect, test } from 'bun:test'
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { adminOf, metric, readiness } from '../support/admin.ts'
import { connect, handshake, payloadOf } from '../support/client.ts'
import { fixture } from '../support/files.ts'
import { listenTo } from '../support/notified.ts'
import { freePort, type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { startProxy, uriThrough } from '../support/proxy.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.stop())

/** Waits until the server has accepted some messages: what it has not read yet, it owes nobody. */
async function accepted(program: Program, count: number): Promise<void> {
  const admin = await adminOf(program)
  await until(async () => (await metric(admin, 'pgws_messages_received_total')) === count)
}

test('on SIGTERM 3,000 accepted messages are in the database, every client sees 1001, and the exit code is 0', async () => {
  const program = await start({ PGWS_DB_URI: server.uri })
  const sql = postgres(server.uri, { max: 1 })
  const notified = await listenTo(sql)
  const url = `${program.origin}/drain/${await token({ mode: 'rw' })}`
  const clients = await Promise.all(Array.from({ length: 3 }, () => connect(url)))
  for (const [writer, client] of clients.entries()) for (let index = 0; index < 1000; index++) client.send(`${writer}-${index}`)
  // What a client reads back has been accepted, and so has what it sent before.
  while (!(await clients[0]?.next())?.includes('"2-999"'));
  program.signal('SIGTERM')
  expect(await program.exited).toBe(0)
  for (const client of clients) expect((await client.closed).code).toBe(1001)
  await sql`select 1`
  expect(new Set(notified.texts.map(payloadOf)).size).toBe(3000)
  await sql.end()
})

test('on SIGTERM under load nothing that was accepted is lost, each sender in order', async () => {
  const program = await start({ PGWS_DB_URI: server.uri })
  const sql = postgres(server.uri, { max: 1 })
  const notified = await listenTo(sql)
  const url = `${program.origin}/load/${await token({ mode: 'w' })}`
  const clients = await Promise.all(Array.from({ length: 10 }, () => connect(url)))
  let isSending = true
  const sending = clients.map(async (client, writer) => {
    for (let index = 0; isSending; index++) {
      client.send(`${writer}-${index}`)
      if (index % 10 === 9) await Bun.sleep(1)
    }
  })
  await notified.reached(2000)
  program.signal('SIGTERM')
  expect(await program.exited).toBe(0)
  isSending = false
  await Promise.all(sending)
  for (const client of clients) expect((await client.closed).code).toBe(1001)
  await sql`select 1`
  const inDatabase = notified.texts.map(payloadOf)
  for (const writer of clients.keys()) {
    const numbers = inDatabase.filter((text) => text.startsWith(`${writer}-`)).map((text) => Number(text.split('-')[1]))
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, index) => index))
  }
  expect(program.stderr()).not.toContain('did not take')
  await sql.end()
})

test('on SIGTERM while the database takes its time for a commit, the server waits for it', async () => {
  const program = await start({ PGWS_DB_URI: server.uri })
  const [admin, blocker] = [postgres(server.uri, { max: 1 }), postgres(server.uri, { max: 1 })]
  await admin`create table slow ()`
  // A commit that has written and notified waits for a standby that there is none of, and every NOTIFY waits for that commit.
  const waitForStandby = async (name: string): Promise<void> => {
    await admin.unsafe(`alter system set synchronous_standby_names = '${name}'`)
    await admin`select pg_reload_conf()`
  }
  const waitsFor = (event: string): Promise<void> =>
    until(async () => (await admin`select pid from pg_stat_activity where wait_event = ${event}`).length > 0)
  const client = await connect(`${program.origin}/slow/${await token({ mode: 'w' })}`)
  await waitForStandby('absent')
  let isBlocked = false
  const blocking = (async () => {
    // Until the setting has reached all of PostgreSQL, a commit waits for nothing.
    while (!isBlocked) {
      await blocker.begin(async (sql) => {
        await sql`insert into slow default values`
        await sql`notify anything`
      })
    }
  })()
  await waitsFor('SyncRep')
  isBlocked = true
  client.send('slow')
  await waitsFor('object')
  program.signal('SIGTERM')
  expect((await client.closed).code).toBe(1001)
  // Longer than the server needs where it does not wait.
  await Bun.sleep(500)
  await waitForStandby('')
  await blocking
  expect(await program.exited).toBe(0)
  expect(program.stderr()).not.toContain('did not take')
  await Promise.all([admin.end(), blocker.end()])
})

test('on SIGTERM while the database is away the exit code is 1 and the number of lost messages is in the log', async () => {
  const program = await start({
    PGWS_DB_URI: server.uri,
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
    PGWS_SHUTDOWN_TIMEOUT: '700',
    PGWS_ADMIN_PORT: '0',
  })
  const client = await connect(`${program.origin}/away/${await token({ mode: 'rw' })}`)
  await server.stop('immediate')
  await program.logged(/listener lost/)
  for (let index = 0; index < 42; index++) client.send('lost')
  await accepted(program, 42)
  const began = Date.now()
  program.signal('SIGTERM')
  expect(await program.exited).toBe(1)
  expect(Date.now() - began).toBeLessThan(2500)
  expect((await client.closed).code).toBe(1001)
  expect(program.stderr()).toContain('stopped with messages that the database did not take messages=42')
  await server.start()
})

test('a second signal ends the server at once', async () => {
  using proxy = await startProxy(server.port)
  const program = await start({
    PGWS_DB_URI: uriThrough(server, proxy),
    PGWS_SHUTDOWN_TIMEOUT: '60000',
    PGWS_ADMIN_PORT: '0',
  })
  const client = await connect(`${program.origin}/twice/${await token({ mode: 'rw' })}`)
  proxy.swallow()
  client.send('never answered')
  await accepted(program, 1)
  await client.close()
  program.signal('SIGTERM')
  await program.logged(/draining/)
  program.signal('SIGINT')
  expect(await program.exited).toBe(1)
})

test('while it drains the server takes no further connection and is not ready', async () => {
  using proxy = await startProxy(server.port)
  const program = await start({
    PGWS_DB_URI: uriThrough(server, proxy),
    PGWS_SHUTDOWN_TIMEOUT: '1500',
    PGWS_ADMIN_PORT: '0',
  })
  const client = await connect(`${program.origin}/late/${await token({ mode: 'rw' })}`)
  proxy.swallow()
  client.send('never answered')
  await accepted(program, 1)
  const admin = await adminOf(program)
  expect(await readiness(admin)).toBe(200)
  program.signal('SIGTERM')
  await program.logged(/draining/)
  expect(await readiness(admin)).toBe(503)
  await expect(handshake(program.port, `/late/${await token({ mode: 'r' })}`)).rejects.toThrow()
  expect(await program.exited).toBe(1)
  expect(program.stderr()).toContain('messages=1')
})

test('a certificate that is renewed while it drains does not open the port again', async () => {
  using proxy = await startProxy(server.port)
  const folder = mkdtempSync(join(tmpdir(), 'pgws-drain-'))
  const show = (name: string): void => {
    for (const kind of ['crt', 'key']) copyFileSync(fixture(`${name}.${kind}`), join(folder, `tls.${kind}`))
  }
  show('server')
  const program = await start({
    PGWS_DB_URI: uriThrough(server, proxy),
    PGWS_SHUTDOWN_TIMEOUT: '1500',
    PGWS_ADMIN_PORT: '0',
    PGWS_PORT: String(await freePort()),
    PGWS_CERTIFICATE_FILE: join(folder, 'tls.crt'),
    PGWS_KEY_FILE: join(folder, 'tls.key'),
  })
  const ca = readFileSync(fixture('authority.crt'), 'utf8')
  const client = await connect(`wss://localhost:${program.port}/late/${await token({ mode: 'w' })}`, { ca })
  proxy.swallow()
  client.send('never answered')
  await accepted(program, 1)
  program.signal('SIGTERM')
  await program.logged(/draining/)
  show('client')
  program.signal('SIGHUP')
  await program.logged(/configuration files read again/)
  await expect(handshake(program.port, '/late')).rejects.toThrow('ECONNREFUSED')
  expect(await program.exited).toBe(1)
  rmSync(folder, { recursive: true })
})
