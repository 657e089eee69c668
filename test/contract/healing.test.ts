import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { type Client, connect, handshake, nextNew, payloadOf } from '../support/client.ts'
import { endBackends } from '../support/faults.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { launch, type Program, start } from '../support/program.ts'
import { type Side, startProxy, uriThrough } from '../support/proxy.ts'
import { token } from '../support/token.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.stop())

const open = async (program: Program): Promise<Client> => connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)

async function goesRound(client: Client, text: string): Promise<void> {
  client.send(text)
  expect(await nextNew(client)).toBe(text)
}

async function kill(side: Side): Promise<void> {
  expect(await endBackends(server, side)).toBeGreaterThan(0)
}

describe('with an interval set', () => {
  const env = () => ({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: '1000' })

  test('a killed LISTEN session is healed three times, and every client stays', async () => {
    await using program = await start(env())
    await using client = await open(program)
    for (let round = 0; round < 3; round++) {
      await goesRound(client, `before ${round}`)
      const before = program.stderr().length
      await kill('listening')
      await program.logged(/listener lost cause="the connection to the database closed/, before)
      await program.logged(/info: listening /, before)
      await goesRound(client, `after ${round}`)
    }
  })

  test('a killed sending session loses no message', async () => {
    await using program = await start(env())
    await using client = await open(program)
    for (let round = 0; round < 3; round++) {
      await goesRound(client, `before ${round}`)
      await kill('sending')
      await goesRound(client, `after ${round}`)
    }
    expect(program.stderr()).not.toContain('listener lost')
  })

  test('a restarted database is healed, and what was sent meanwhile arrives in order', async () => {
    await using program = await start(env())
    await using client = await open(program)
    await goesRound(client, 'before')
    await server.stop('immediate')
    await program.logged(/listener lost/)
    for (let index = 0; index < 100; index++) client.send(String(index))
    await server.start()
    expect(await nextNew(client)).toBe('0')
    expect((await client.take(99)).map(payloadOf)).toEqual(Array.from({ length: 99 }, (_, index) => String(index + 1)))
    await goesRound(client, 'after')
  })

  test('what is sent while LISTEN alone is away waits until it stands again', async () => {
    const admin = postgres(server.uri, { max: 1 })
    await admin.unsafe(`create role few login connection limit 2 password '${server.password}'`)
    await using program = await start({ ...env(), PGWS_DB_URI: server.uri.replace('//postgres:', '//few:') })
    await using client = await open(program)
    await goesRound(client, 'before')
    // The sending session stays, and takes the one place that is left.
    await admin.unsafe('alter role few connection limit 1')
    await admin`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'few' and query like '%pg_listening_channels%'`
    await program.logged(/cannot listen .*too many connections/)
    for (let index = 0; index < 50; index++) client.send(String(index))
    const before = program.stderr().length
    await program.logged(/cannot listen .*too many connections/, before)
    await admin.unsafe('alter role few connection limit 2')
    await program.logged(/listening again/, before)
    client.send('50')
    expect(payloadOf(await client.next())).toBe('0')
    expect((await client.take(50)).map(payloadOf)).toEqual(Array.from({ length: 50 }, (_, index) => String(index + 1)))
    await admin.end()
  })

  test('a half-open connection is found within the interval, and healed when the way is free', async () => {
    using proxy = await startProxy(server.port)
    await using program = await start({ ...env(), PGWS_DB_URI: uriThrough(server, proxy) })
    await using client = await open(program)
    await goesRound(client, 'before')
    proxy.swallow()
    const began = Date.now()
    await program.logged(/listener lost cause=".*half open/)
    expect(Date.now() - began).toBeLessThan(1500)
    client.send('while it was away')
    proxy.pass()
    expect(await nextNew(client)).toBe('while it was away')
    await goesRound(client, 'after')
  })

  test('a way that was silent for long is found to be free within the interval, though nobody answers the attempt that is under way', async () => {
    using proxy = await startProxy(server.port)
    await using program = await start({ ...env(), PGWS_DB_URI: uriThrough(server, proxy) })
    await using client = await open(program)
    await goesRound(client, 'before')
    const before = program.stderr().length
    proxy.swallow()
    await program.logged(/listener lost/, before)
    // Several attempts are swallowed in that time.
    await Bun.sleep(3000)
    proxy.pass()
    const began = Date.now()
    await program.logged(/listening again/, before)
    expect(Date.now() - began).toBeLessThan(1000)
    await goesRound(client, 'after')
  })
})

describe('with no interval set', () => {
  test('a lost listener ends the server with exit 1, after its clients got 1001, and names the variable that heals', async () => {
    const program = await start({ PGWS_DB_URI: server.uri })
    const client = await open(program)
    await goesRound(client, 'before')
    await kill('listening')
    expect(await program.logged(/listening again/).catch(() => program.exited)).toBe(1)
    expect((await client.closed).code).toBe(1001)
    expect(program.stderr()).toMatch(
      /listener lost cause=.*\n.*the listener lost is not healed set-to-heal=PGWS_CHECK_LISTENER_INTERVAL/,
    )
  })

  test('a killed sending session is no reason to stop', async () => {
    await using program = await start({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: '0' })
    await using client = await open(program)
    await goesRound(client, 'before')
    await kill('sending')
    await goesRound(client, 'after')
  })
})

describe('at the start', () => {
  test('a database that comes late is waited for', async () => {
    await server.stop('fast')
    await using program = launch({ PGWS_DB_URI: server.uri })
    const port = await program.bound()
    await program.logged(/cannot listen .*attempt=1 of=5 next-in=1s/)
    await server.start()
    await program.logged(/info: listening /)
    expect((await handshake(port, `/chat/${await token({ mode: 'r' })}`)).status).toBe(101)
  })

  test('a database that does not come ends the program with exit 1 after PGWS_RETRIES attempts, with waits that double', async () => {
    const began = Date.now()
    const program = launch({ PGWS_DB_URI: 'postgres://u:its-password@127.0.0.1:1/d', PGWS_RETRIES: '3' })
    expect(await program.exited).toBe(1)
    expect(Date.now() - began).toBeGreaterThan(3000)
    expect(program.stderr()).toMatch(/attempt=1 of=3 next-in=1s[\s\S]*attempt=2 of=3 next-in=2s[\s\S]*cannot reach the database/)
    expect(program.stderr()).not.toContain('its-password')
  })

  test('a replica is named as one', async () => {
    await server.stop('fast')
    const standby = await startPostgres({
      prepare: (folder) => {
        cpSync(server.dataFolder, folder, { recursive: true })
        writeFileSync(join(folder, 'standby.signal'), '')
      },
      settings: { hot_standby: 'on' },
    })
    const uri = standby.uri.replace(standby.password, server.password)
    const program = launch({ PGWS_DB_URI: uri, PGWS_RETRIES: '1' })
    expect(await program.exited).toBe(1)
    expect(program.stderr()).toMatch(/replica|recovery/)
    await standby.stop()
    await server.start()
  })
})
