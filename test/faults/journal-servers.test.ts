/** The journal with several servers, as they are run: one order for all, and nothing missed or doubled whatever befalls the sequencer or the database. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { schema } from '../../lib/database/schema/install.ts'
import { adminOf, metric } from '../support/admin.ts'
import { type Client, connect } from '../support/client.ts'
import { openCrowd } from '../support/crowd.ts'
import { type JournalDatabase, startJournal } from '../support/journal.ts'
import { createKeptLedger } from '../support/kept-ledger.ts'
import {
  askOnce,
  keptTruth,
  markEnds,
  numberOf,
  openSession,
  startClient,
  startKeptReader,
  startTransactions,
} from '../support/kept-load.ts'
import { startPostgres } from '../support/postgres.ts'
import { type Environment, type Program, start } from '../support/program.ts'
import { startProxy, uriThrough } from '../support/proxy.ts'
import { createRandom } from '../support/random.ts'
import { unique } from '../support/setup.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

const INTERVAL = 1000

/** Milliseconds that a message takes beside the takeover, on a machine that has much to do. */
const SLACK = 500

let journal: JournalDatabase
beforeAll(async () => {
  journal = await startJournal()
})
afterAll(() => journal.stop())

const env = (more: Environment = {}): Environment => ({
  PGWS_DB_URI: journal.uri,
  PGWS_JOURNAL: 'True',
  PGWS_JOURNAL_CHANNELS: 'kept-*',
  PGWS_CHECK_LISTENER_INTERVAL: String(INTERVAL),
  ...more,
})

const position = async (uri = journal.uri): Promise<string> =>
  String((await askOnce(uri, 'select pgws.position() as position'))[0]?.position)

const publish = async (channel: string, text: string, uri = journal.uri): Promise<void> =>
  void (await askOnce(uri, 'select pgws.publish($1, $2)', [channel, text]))

const open = async ({ origin }: Program, channel: string, query = '', protocols: string[] = []): Promise<Client> =>
  connect(`${origin}/${channel}/${await token({ mode: 'r' })}${query}`, { protocols })

/** Two servers, of which the first is the sequencer. */
async function two(first: Environment = env()): Promise<readonly [Program, Program]> {
  const one = await start(first)
  await one.logged(/this server sequences the journal/)
  return [one, await start(env())]
}

test.each([2, 8])('%i servers see one order and the same positions', async (count) => {
  const channel = unique('order')
  const programs = await Promise.all(Array.from({ length: count }, () => start(env())))
  const clients = await Promise.all(programs.map((program) => open(program, channel, '', ['pgws.json'])))
  for (const client of clients) expect(JSON.parse(await client.next())).toMatchObject({ event: 'Connected' })
  const publishers = Array.from({ length: 4 }, () => journal.session())
  await Promise.all(
    publishers.map(async (sql, publisher) => {
      for (let turn = 0; turn < 20; turn++)
        await sql`select pgws.publish(${channel}, ${`${publisher} ${turn} `} || n) from generate_series(1, 3) n`
    }),
  )
  const [first, ...others] = await Promise.all(
    clients.map(async (client) => (await client.take(4 * 20 * 3)).map((text) => JSON.parse(text))),
  )
  const numbers = first?.map((message) => numberOf(message.position)) ?? []
  expect(numbers).toEqual([...new Set(numbers)].sort((one, other) => one - other))
  expect(new Set(first?.map(({ text }) => text)).size).toBe(4 * 20 * 3)
  for (const other of others) expect(other).toEqual(first ?? [])
  await Promise.all([...clients.map((client) => client.close()), ...programs.map((program) => program.stop())])
})

interface Load {
  readonly programs: readonly Program[]
  /** Those that live from beginning to end. */
  readonly steady: readonly Program[]
  readonly faults: () => Promise<void>
}

/** Runs faults under a load, and holds what each reader got against the journal, exactly. */
async function underLoad({ programs, steady, faults }: Load): Promise<void> {
  const random = createRandom(7)
  const ledger = createKeptLedger()
  const channels = ['kept-1', 'kept-2']
  const from = await position()
  const name = unique('load')
  const urlTo = async (program: Program, mode: string, names = channels) => ({
    url: `${program.origin}/${await token({ mode, channels: names })}`,
  })
  const readers = [
    ...steady.map((program) => startKeptReader({ place: () => urlTo(program, 'r'), channels, ledger, from })),
    ...[1, 2, 3].map(() => {
      const comesAndGoes = { stay: () => 50 + random.below(800), away: () => random.below(300) }
      return startKeptReader({ place: () => urlTo(random.pick(programs), 'r'), channels, ledger, from, comesAndGoes })
    }),
  ]
  const publishers = [
    ...[1, 2].map((index) =>
      startTransactions({ uri: journal.uri, channels, name: `${name}-${index}`, ledger, random, pace: 5, longest: 500 }),
    ),
    ...(await Promise.all(
      steady.map(async (home, index) =>
        startClient((await urlTo(home, 'w', ['kept-1'])).url, `${name}-client-${index}`, ledger, { home, pace: 20 }),
      ),
    )),
  ]
  await faults()
  await Bun.sleep(200)
  for (const publisher of publishers) await publisher.stop()
  await keptTruth(journal.uri, numberOf(from), ledger)
  const marks = await markEnds(journal.uri, channels, ledger)
  await Promise.all(readers.map((reader) => reader.stop([...marks.values()])))
  // Beside these channels there is the one that is watched.
  const truth = (await keptTruth(journal.uri, numberOf(from), ledger)).filter(({ channel }) => channels.includes(channel))
  const { missed, twice, disordered, wrong, published, read } = ledger.judge(truth)
  expect({ missed, twice, disordered, wrong }).toEqual({ missed: [], twice: [], disordered: [], wrong: [] })
  expect(published).toBeGreaterThan(100)
  expect(read).toBeGreaterThan(published)
}

describe('nothing is missed or comes twice, and another server takes over within two check intervals, when the sequencer', () => {
  async function takenOver(second: Program, strike: () => void): Promise<void> {
    await using watcher = await open(second, 'watched')
    await publish('watched', 'before')
    expect(await watcher.next()).toBe('before')
    strike()
    const began = performance.now()
    await publish('watched', 'behind')
    expect(await watcher.next()).toBe('behind')
    expect(performance.now() - began).toBeLessThan(2 * INTERVAL + SLACK)
    await second.logged(/this server sequences the journal/)
  }

  test('is killed', async () => {
    const [first, second] = await two()
    await underLoad({
      programs: [first, second],
      steady: [second],
      faults: () => takenOver(second, () => first.signal('SIGKILL')),
    })
    await second.stop()
  })

  test('is stopped, and goes on later', async () => {
    const [first, second] = await two()
    await underLoad({
      programs: [first, second],
      steady: [first, second],
      async faults() {
        await takenOver(second, () => first.signal('SIGSTOP'))
        first.signal('SIGCONT')
      },
    })
    await Promise.all([first.stop(), second.stop()])
  })

  test('is cut off from the database, and finds it again later', async () => {
    using proxy = await startProxy(journal.server.port)
    const [first, second] = await two(env({ PGWS_DB_URI: uriThrough({ uri: journal.uri, port: journal.server.port }, proxy) }))
    await underLoad({
      programs: [first, second],
      steady: [first, second],
      async faults() {
        await takenOver(second, () => proxy.swallow())
        await first.logged(/listener lost/)
        const before = first.stderr().length
        proxy.pass()
        await first.logged(/reading the journal/, before)
      },
    })
    await Promise.all([first.stop(), second.stop()])
  })
})

test('restarts of PostgreSQL, in each way, lose nothing, and tell of nothing on channels of the journal', async () => {
  const programs = await two()
  const restart = async (mode: 'smart' | 'fast' | 'immediate' | 'kill'): Promise<void> => {
    const healed = programs.map((program) => program.logged(/info: listening /, program.stderr().length))
    const session = await openSession(journal.uri)
    const stopping = journal.server.stop(mode)
    // It lets nobody in, and waits until everybody has gone.
    const end = 'select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()'
    if (mode === 'smart') await session.query(end)
    session.close()
    await stopping
    await journal.server.start()
    await Promise.all(healed)
    await Bun.sleep(200)
  }
  await underLoad({
    programs,
    steady: programs,
    async faults() {
      for (const mode of ['smart', 'fast', 'immediate', 'kill'] as const) await restart(mode)
    },
  })
  await Promise.all(programs.map((program) => program.stop()))
})

test('2,000 clients that come back at once with a recent position cost no query', async () => {
  using proxy = await startProxy(journal.server.port)
  await using program = await start(
    env({ PGWS_DB_URI: uriThrough({ uri: journal.uri, port: journal.server.port }, proxy), PGWS_ADMIN_PORT: '0' }),
  )
  const channel = unique('blip')
  await using one = await open(program, channel)
  const since = await position()
  for (const text of ['1', '2', '3']) await publish(channel, text)
  await one.take(3)
  const admin = await adminOf(program)
  const path = `/${channel}/${await token({ mode: 'r' })}?since=${since}`
  const before = proxy.bytes
  const crowd = await openCrowd(program.port, Array<string>(2000).fill(path))
  await until(() => crowd.frames === 2000 * 3)
  // What the server asks of its own accord: looks, reads and checks.
  expect(proxy.bytes - before).toBeLessThan(40_000)
  expect(await metric(admin, 'pgws_journal_resumes_total{from="memory"}')).toBe(2000)
  await crowd.close()
})

/** Of a session that may be with a replica. */
async function askReplica(uri: string, statement: string, ...parameters: readonly string[]): Promise<unknown> {
  const sql = postgres(uri, { max: 1 })
  const [row] = await sql.unsafe(statement, [...parameters])
  await sql.end()
  return row?.is
}

test('after a failover positions up to the fork are good, and readers beyond it are told', async () => {
  const primary = await startPostgres({ settings: { wal_level: 'replica', max_wal_senders: '5' } })
  await primary.stop('fast')
  const replica = await startPostgres({
    prepare: (folder) => {
      cpSync(primary.dataFolder, folder, { recursive: true })
      writeFileSync(join(folder, 'standby.signal'), '')
    },
    settings: {
      primary_conninfo: `host=127.0.0.1 port=${primary.port} user=postgres password=${primary.password}`,
      hot_standby: 'on',
    },
  })
  await primary.start()
  // The replica has the roles of the primary.
  const ofReplica = primary.uri.replace(`:${primary.port}/`, `:${replica.port}/`)
  await askOnce(primary.uri, schema)
  const hosts = `127.0.0.1:${primary.port},127.0.0.1:${replica.port}`
  const uri = `postgres://postgres:${primary.password}@${hosts}/postgres?target_session_attrs=read-write&connect_timeout=2`
  const program = await start(env({ PGWS_DB_URI: uri }))
  const stays = await open(program, 'fork', '', ['pgws'])
  await publish('fork', '1', primary.uri)
  expect(await stays.next()).toBe('1')
  const early = await position(primary.uri)
  await publish('fork', '2', primary.uri)
  expect(await stays.next()).toBe('2')
  const copied = String((await askOnce(primary.uri, 'select pg_current_wal_flush_lsn()::text as lsn'))[0]?.lsn)
  const isCopied = 'select pg_last_wal_replay_lsn() >= $1::text::pg_lsn as is'
  await until(async () => (await askReplica(ofReplica, isCopied, copied)) === true)
  await replica.stop('fast')
  await publish('fork', 'never copied', primary.uri)
  expect(await stays.next()).toBe('never copied')
  const late = await position(primary.uri)
  await primary.stop('immediate')
  await replica.start()
  await askReplica(ofReplica, 'select pg_promote() as is')

  expect(JSON.parse(await stays.next())).toMatchObject({ event: 'MessagesMissed', channel: 'fork' })
  await publish('fork', '3', ofReplica)
  let text = await stays.next()
  while (text.includes('MessagesMissed')) text = await stays.next()
  expect(text).toBe('3')
  await using resumed = await open(program, 'fork', `?since=${early}`)
  expect(await resumed.take(2)).toEqual(['2', '3'])
  await using told = await open(program, 'fork', `?since=${late}`, ['pgws'])
  await publish('fork', '4', ofReplica)
  expect(JSON.parse(await told.next())).toMatchObject({ event: 'MessagesMissed', channel: 'fork', from: null })
  expect(await told.next()).toBe('4')
  await expect(open(program, 'fork', `?since=${late}`)).rejects.toThrow()

  await program.stop()
  await replica.stop()
  await primary.start()
  await primary.stop()
})
