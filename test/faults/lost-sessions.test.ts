import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import postgres from 'postgres'
import { createLedger, type Ledger, type Verdict } from '../support/ledger.ts'
import { openReader, settledTruth, startSql, startWriter, type WriterOptions } from '../support/load.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { startProxy } from '../support/proxy.ts'
import { token } from '../support/token.ts'
import { startWitness, WITNESSED, type Witness } from '../support/witness.ts'

let server: Postgres
let witness: Witness
beforeAll(async () => {
  server = await startPostgres({ settings: WITNESSED })
  witness = await startWitness(server)
})
beforeEach(() => witness.clear())
afterAll(() => server.stop())

async function verdictOf(ledger: Ledger): Promise<Verdict> {
  const verdict = ledger.judge(await settledTruth(ledger, witness))
  const { lost, changed, disordered } = verdict
  expect({ lost, changed, disordered }).toEqual({ lost: [], changed: [], disordered: [] })
  return verdict
}

/** Runs faults under the load of clients and SQL, and holds every reader's view against what was committed. */
async function underLoad(uri: string, faults: (program: Program) => Promise<void>, flood?: WriterOptions): Promise<Verdict> {
  const program = await start({ PGWS_DB_URI: uri, PGWS_CHECK_LISTENER_INTERVAL: '1000' })
  const url = `${program.origin}/${await token({ mode: 'rw', channels: ['load'] })}`
  const ledger = createLedger()
  const readers = await Promise.all([1, 2, 3].map(() => openReader(url, ['load'], ledger, witness)))
  const senders = [
    ...(await Promise.all(['a', 'b', 'c', 'd'].map((name) => startWriter(url, name, ledger)))),
    ...(flood ? [await startWriter(url, 'flood', ledger, flood)] : []),
    startSql(server.uri, ['load'], 'sql', ledger),
  ]
  await faults(program)
  await Bun.sleep(200)
  await Promise.all(senders.map((sender) => sender.stop()))
  await Promise.all(readers.map((reader) => reader.stop()))
  const verdict = await verdictOf(ledger)
  expect(verdict.delivered).toBeGreaterThan(3000)
  expect(await program.stop()).toBe(0)
  return verdict
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
  async (mode) => {
    await underLoad(server.uri, async (program) => {
      for (let round = 0; round < 2; round++) {
        await Bun.sleep(200)
        const before = program.stderr().length
        await server.stop(mode)
        await program.logged(/listener lost/, before)
        await server.start()
        await program.logged(/listening again/, before)
      }
    })
  },
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

test(`a LISTEN connection that was slow ends with notifications on their way: ${kept}`, async () => {
  using proxy = await startProxy(server.port)
  const verdict = await underLoad(server.uri.replace(/:\d+\//, `:${proxy.port}/`), async (program) => {
    for (let round = 0; round < 3; round++) {
      const before = program.stderr().length
      for (const link of proxy.links('listening')) link.delay(200, 'down')
      await Bun.sleep(450)
      for (const link of proxy.links('listening')) link.reset()
      await program.logged(/listening again/, before)
      await Bun.sleep(100)
    }
  })
  expect(verdict.told).toBeGreaterThan(0)
}, 60_000)

test.each([
  ['one batch under way', undefined],
  // Full batches follow each other before their answers.
  ['several', { handful: 3000, pace: 150 }],
] as const)(
  `answers cut off until messages come twice, with %s: ${kept}`,
  async (_, flood) => {
    using proxy = await startProxy(server.port)
    let duplicated = 0
    for (let round = 0; duplicated === 0 && round < 5; round++) {
      const faults = async () => {
        for (let cut = 0; cut < 5; cut++) {
          for (const link of proxy.links('sending')) link.swallow('down')
          // What goes up in this time is committed, and nobody is told so.
          await Bun.sleep(flood ? 2 * flood.pace : 10 + 5 * cut)
          for (const link of proxy.links('sending')) link.reset()
          await Bun.sleep(200)
        }
      }
      const verdict = await underLoad(server.uri.replace(/:\d+\//, `:${proxy.port}/`), faults, flood)
      duplicated += verdict.duplicated
    }
    expect(duplicated).toBeGreaterThan(0)
  },
  60_000,
)

test('a server killed under load leaves nothing that keeps the next one from serving on the same port', async () => {
  const killed = await start({ PGWS_DB_URI: server.uri })
  const ledger = createLedger()
  const access = await token({ mode: 'rw', channels: ['load'] })
  const writer = await startWriter(`${killed.origin}/${access}`, 'before', ledger)
  const reader = await openReader(`${killed.origin}/${access}`, ['load'], ledger, witness)
  await Bun.sleep(100)
  killed.signal('SIGKILL')
  await killed.exited
  await writer.stop()
  await reader.stop()
  const next = await start({ PGWS_DB_URI: server.uri, PGWS_PORT: String(killed.port) })
  expect(next.port).toBe(killed.port)
  const again = await openReader(`${next.origin}/${access}`, ['load'], ledger, witness)
  const other = await startWriter(`${next.origin}/${access}`, 'after', ledger)
  await Bun.sleep(50)
  await other.stop()
  await again.stop()
  expect((await verdictOf(ledger)).delivered).toBeGreaterThan(0)
  expect(await next.stop()).toBe(0)
})
