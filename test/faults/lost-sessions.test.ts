import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { createLedger } from '../support/ledger.ts'
import { openReader, startSql, startWriter } from '../support/load.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { startProxy } from '../support/proxy.ts'
import { token } from '../support/token.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.stop())

/** Runs faults under the load of clients and SQL, and holds every reader's view against what was sent. */
async function underLoad(uri: string, faults: (program: Program) => Promise<void>): Promise<void> {
  const program = await start({ PGWS_DB_URI: uri, PGWS_CHECK_LISTENER_INTERVAL: '1000' })
  const url = `${program.origin}/${await token({ mode: 'rw', channels: ['load'] })}`
  const ledger = createLedger()
  const readers = await Promise.all([1, 2, 3].map(() => openReader(url, ledger)))
  const senders = [
    ...(await Promise.all(['a', 'b', 'c', 'd'].map((name) => startWriter(url, name, ledger)))),
    startSql(server.uri, 'load', 'sql', ledger),
  ]
  await faults(program)
  await Bun.sleep(200)
  await Promise.all(senders.map((sender) => sender.stop()))
  for (const reader of readers) {
    await reader.whole()
    const { delivered, lost, changed } = await reader.stop()
    expect({ lost, changed }).toEqual({ lost: [], changed: [] })
    expect(delivered).toBeGreaterThan(1000)
  }
  expect(await program.stop()).toBe(0)
}

const kept = 'every message of every sender arrives in order, copies are identical, and what is missing was told'

test(`sessions killed 20 times: ${kept}`, async () => {
  const admin = postgres(server.uri, { max: 1 })
  await underLoad(server.uri, async (program) => {
    for (let round = 0; round < 20; round++) {
      const side = ['%pg_listening_channels%', '%pg_notify(%', '%pg%'][round % 3] ?? ''
      const before = program.stderr().length
      await admin`select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'postgres-websockets' and query like ${side} and pid <> pg_backend_pid()`
      if (round % 3 !== 1) await program.logged(/listening again/, before)
      await Bun.sleep(60)
    }
  })
  await admin.end()
}, 60_000)

test.each(['fast', 'immediate', 'kill'] as const)(
  `PostgreSQL restarted (%s): ${kept}`,
  (mode) =>
    underLoad(server.uri, async (program) => {
      for (let round = 0; round < 2; round++) {
        await Bun.sleep(200)
        const before = program.stderr().length
        await server.stop(mode)
        await program.logged(/listener lost/, before)
        await server.start()
        await program.logged(/listening again/, before)
      }
    }),
  60_000,
)

test(`connections half open: ${kept}`, async () => {
  using proxy = await startProxy(server.port)
  await underLoad(server.uri.replace(/:\d+\//, `:${proxy.port}/`), async (program) => {
    for (let round = 0; round < 2; round++) {
      await Bun.sleep(200)
      const before = program.stderr().length
      proxy.swallow()
      await program.logged(/listener lost/, before)
      proxy.pass()
      await program.logged(/listening again/, before)
    }
  })
}, 60_000)

test('a server killed under load leaves nothing that keeps the next one from serving on the same port', async () => {
  const killed = await start({ PGWS_DB_URI: server.uri })
  const ledger = createLedger()
  const access = await token({ mode: 'rw', channels: ['load'] })
  const writer = await startWriter(`${killed.origin}/${access}`, 'before', ledger)
  const reader = await openReader(`${killed.origin}/${access}`, ledger)
  await Bun.sleep(100)
  killed.signal('SIGKILL')
  await killed.exited
  await writer.stop()
  const { lost, changed } = await reader.stop()
  expect({ lost, changed }).toEqual({ lost: [], changed: [] })
  const next = await start({ PGWS_DB_URI: server.uri, PGWS_PORT: String(killed.port) })
  expect(next.port).toBe(killed.port)
  const again = await openReader(`${next.origin}/${access}`, ledger)
  const other = await startWriter(`${next.origin}/${access}`, 'after', ledger)
  await Bun.sleep(50)
  await other.stop()
  await again.whole()
  const result = await again.stop()
  expect(result.lost).toEqual([])
  expect(result.delivered).toBeGreaterThan(0)
  expect(await next.stop()).toBe(0)
})
