/** Owns what the journal costs the compiled binary beside NOTIFY: each figure is of one server, which does both in turn. */
import { type Crowd, openCrowd } from '../../test/support/crowd.ts'
import { startJournal } from '../../test/support/journal.ts'
import { median } from '../../test/support/median.ts'
import { token } from '../../test/support/token.ts'
import { own, type Running, start } from '../subjects.ts'
import type { Result } from './run.ts'

const quick = process.argv.includes('--quick')
const ROUNDS = quick ? 1 : 3
const [READERS, BURST] = quick ? [100, 1000] : [1000, 10_000]
const [WRITERS, WRITES] = quick ? [5, 100] : [20, 2000]
const BACK = quick ? 200 : 10_000

/** The pause between two messages of an idle journal: it falls asleep meanwhile. */
const IDLE_MS = 120
/** Milliseconds in which a server gets rid of what was before. */
const SETTLED_MS = 500

const CHANNEL = 'postgres-websockets-listener'

const given = await token({ mode: 'rw' })
const path = (channel: string, query = ''): string => `/${channel}/${given}${query}`
const times = (count: number, text: string): string[] => Array<string>(count).fill(text)

type Place = Awaited<ReturnType<typeof startJournal>>

/** The same work by NOTIFY and by the journal, with a figure for each. */
type Sides = (side: 'notify' | 'journal', server: Running, place: Place) => Promise<number>

interface Work {
  readonly name: string
  readonly work: string
  readonly measured: string
  readonly goal: string
  run: Sides
  /** Ends the process where what it says was not so. */
  after?(place: Place): Promise<void>
}

async function burst(side: 'notify' | 'journal', server: Running, { sql }: Place): Promise<number> {
  const crowd = await openCrowd(server.port, times(READERS, path('burst')), READERS)
  await Bun.sleep(SETTLED_MS)
  const cpu = server.cpu()
  const all = crowd.expect(READERS * BURST)
  const text = `json_build_object('event', 'WebsocketMessage', 'channel', 'burst', 'n', n, 'payload', repeat('x', 100))::text`
  const call = side === 'notify' ? `pg_notify('${CHANNEL}', ${text})` : `pgws.publish('burst', ${text})`
  await sql.unsafe(`select count(${call}) from generate_series(1, ${BURST}) as n`)
  await all
  const used = server.cpu() - cpu
  await closed(crowd)
  return (used / (READERS * BURST)) * 1e6
}

/** Each alone on its channel: what comes back to a writer has been in the database. */
async function writes(side: 'notify' | 'journal', server: Running): Promise<number> {
  const paths = Array.from({ length: WRITERS }, (_, writer) => path(`${side === 'notify' ? 'write' : 'kept'}-${writer}`))
  const crowd = await openCrowd(server.port, paths, WRITERS)
  const rates: number[] = []
  for (let round = 0; round < (quick ? 1 : 6); round++) {
    const began = performance.now()
    const all = crowd.expect(WRITERS * WRITES)
    for (let writer = 0; writer < WRITERS; writer++) crowd.write(writer, `message of writer ${writer}`, WRITES)
    await all
    rates.push((WRITERS * WRITES * 1000) / (performance.now() - began))
  }
  await closed(crowd)
  return median(rates.slice(rates.length > 1 ? 1 : 0))
}

/** Clients that come back have missed one message each, so that all that resume show up in the count. */
async function comeBack(side: 'notify' | 'journal', server: Running, { sql }: Place): Promise<number> {
  const [at] = await sql`select pgws.position() as position`
  const crowd = await openCrowd(server.port, [path('back')])
  const arrived = crowd.expect(1)
  await sql`select pgws.publish('back', 'missed')`
  await arrived
  const query = side === 'notify' ? '' : `?since=${at?.position}`
  await opened(server, 200, query)
  const used = await opened(server, BACK, query)
  await closed(crowd)
  return (used / BACK) * 1e6
}

async function opened(server: Running, count: number, query: string): Promise<number> {
  await Bun.sleep(SETTLED_MS)
  const cpu = server.cpu()
  const crowd = await openCrowd(server.port, times(count, path('back', query)), count)
  while (query !== '' && crowd.frames < count) await Bun.sleep(1)
  const used = server.cpu() - cpu
  await closed(crowd)
  return used
}

/**
 * What resumes from the tables calls a function that reads history. What asks where the journal stands calls `stand` without `read`, which
 * a server that follows the journal does only as it connects.
 */
async function noQueries({ sql }: Place): Promise<void> {
  const rows = await sql`select funcname, calls::int from pg_stat_user_functions where schemaname = 'pgws'`
  const calls = (name: string): number => Number(rows.find(({ funcname }) => funcname === name)?.calls ?? 0)
  const asked = ['read_channels', 'channel_after', 'newest'].reduce((sum, name) => sum + calls(name), 0)
  const stands = calls('stand') - calls('read')
  if (calls('stand') === 0 || asked > 0 || stands > 10 * ROUNDS)
    throw new Error(`clients that came back cost queries: ${JSON.stringify(rows)}`)
}

/** Milliseconds from before the statement until the frame is there. */
async function idle(side: 'notify' | 'journal', server: Running, place: Place): Promise<number> {
  const crowd = await openCrowd(server.port, [path('idle')])
  const taken: number[] = []
  for (let index = 0; index < (quick ? 5 : 40); index++) {
    await Bun.sleep(IDLE_MS)
    const arrived = crowd.expect(1)
    const text = JSON.stringify({ channel: 'idle', payload: String(index) })
    const began = performance.now()
    await Promise.all([publish(side, place, text), arrived])
    taken.push(performance.now() - began)
  }
  await closed(crowd)
  return median(taken)
}

const publish = (side: 'notify' | 'journal', { sql }: Place, text: string): PromiseLike<unknown> =>
  side === 'journal'
    ? sql`select pgws.publish('idle', ${text})`
    : sql`with put as (insert into bare (payload) values (${text}) returning payload) select pg_notify(${CHANNEL}, payload) from put`

async function closed(crowd: Crowd): Promise<void> {
  await crowd.close()
  await Bun.sleep(SETTLED_MS)
}

const count = (number: number): string => number.toLocaleString('en')

const works: readonly Work[] = [
  {
    name: 'socket',
    work: 'idle, publish to socket',
    measured: 'p50 in ms, to insert-and-NOTIFY',
    goal: '≤ 2.5',
    run: idle,
  },
  {
    name: 'burst',
    work: `one transaction of ${count(BURST)} messages to ${count(READERS)} readers`,
    measured: "CPU-s per million deliveries, to NOTIFY's",
    goal: '≤ 1.1',
    run: burst,
  },
  {
    name: 'writes',
    work: `messages of ${WRITERS} clients`,
    measured: "messages/s, to NOTIFY's",
    goal: '≥ 0.5',
    run: writes,
  },
  {
    name: 'back',
    work: `${count(BACK)} clients coming back at once`,
    measured: 'CPU-µs of one, to opening without a position',
    goal: '≤ 2',
    run: comeBack,
    after: noQueries,
  },
]

/** @param only the names of those to be measured; all without one. @returns their results, one by one. */
export async function* doors(only: readonly string[]): AsyncGenerator<Result> {
  const wanted = works.filter(({ name }) => only.length === 0 || only.includes(name))
  if (wanted.length === 0) return
  const place = await startJournal({ fsync: 'on', synchronous_commit: 'on', max_wal_size: '8GB' })
  await place.sql`create table bare (id bigserial primary key, payload text)`
  for (const { work, measured, goal, run, after } of wanted) {
    // It slows every statement a little: only where functions are counted.
    await place.sql.unsafe(`alter role all set track_functions = '${after ? 'all' : 'none'}'`)
    const found: { readonly notify: number[]; readonly journal: number[] } = { notify: [], journal: [] }
    for (let round = 0; round < ROUNDS; round++) {
      const server = await start(own, place.uri, given, {
        PGWS_JOURNAL: 'True',
        PGWS_JOURNAL_CHANNELS: 'kept-*',
      })
      for (const side of round % 2 === 0 ? (['notify', 'journal'] as const) : (['journal', 'notify'] as const))
        found[side].push(await run(side, server, place))
      await server.stop()
    }
    await after?.(place)
    yield { work, measured, value: median(found.journal), beside: median(found.notify), goal }
  }
  await place.stop()
}
