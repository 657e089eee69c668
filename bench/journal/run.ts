/**
 * Owns `npm run bench -- journal`: the journal beside NOTIFY and a bare INSERT, as ratios of one run, with fsync on. `--quick` is a short
 * form that only shows that it works.
 */
import { spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { BELLS, createJournal, type Entry, type Journal } from '../../lib/broker/postgres/journal/journal.ts'
import { parseConninfo } from '../../lib/database/conninfo.ts'
import { createDatabase } from '../../lib/database/database.ts'
import { createLog } from '../../lib/log.ts'
import { startJournal } from '../../test/support/journal.ts'
import { median } from '../../test/support/median.ts'
import { doors } from './doors.ts'
import { fill } from './fill.ts'

const quick = process.argv.includes('--quick')
const ROUNDS = quick ? 1 : 3
const MEASURED_MS = quick ? 300 : 3000

/** The pause between two messages of an idle journal: it falls asleep meanwhile. */
const IDLE_MS = 120

const place = await startJournal({ fsync: 'on', synchronous_commit: 'on', max_wal_size: '8GB' })
const { sql } = place
await sql`create table bare (id bigserial primary key, channel text, payload text, at timestamptz default now())`

const TEXT = `'chat' || (random() * 100)::int, repeat('x', 100)`
const INSERT = `insert into bare (channel, payload) values (${TEXT})`
const NOTIFY = `with put as (${INSERT} returning id, payload) select pg_notify('messages', id || payload) from put`
const PUBLISH = `select pgws.publish(${TEXT})`

interface Load {
  readonly rate: number
  readonly p99: number
}

async function load(count: number, statement: string): Promise<Load> {
  const child = spawn(
    process.execPath,
    [resolve(import.meta.dir, 'publishers.ts'), place.uri, String(count), String(MEASURED_MS), statement],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  let output = ''
  child.stdout.on('data', (chunk) => (output += chunk))
  await new Promise((closed) => child.once('close', closed))
  return JSON.parse(output)
}

let received: (entry: Pick<Entry, 'text'>) => void = () => undefined

async function startServer(): Promise<Journal> {
  const database = createDatabase(() => parseConninfo(place.uri, {}, () => new Uint8Array(), 'nobody'), 0)
  const journal = createJournal({
    database,
    retention: '1 day',
    cacheBytes: 16 * 1_048_576,
    checkInterval: 0,
    log: createLog({ level: 'error', write: console.error }),
    receive(entries) {
      for (const entry of entries) received(entry)
    },
    lost: () => undefined,
  })
  await journal.start()
  const bells = place.session()
  for (const channel of BELLS) await bells.listen(channel, (text) => journal.rang(channel, text))
  await bells.listen('messages', (text) => received({ text }))
  return journal
}

export interface Result {
  readonly work: string
  readonly measured: string
  readonly value: number
  /** What it is compared with, and the ratio that is to be reached, at least or at most. */
  readonly beside: number
  readonly goal: string
}

const results: Result[] = []

function add(result: Result): void {
  const { work, measured, value, beside, goal } = result
  const show = (number: number): string => (number >= 1000 ? Math.round(number).toLocaleString('en') : number.toPrecision(3))
  console.log(`| ${work} | ${measured} | ${show(value)} | ${show(beside)} | ${(value / beside).toPrecision(3)} × | ${goal} |`)
  results.push(result)
}

async function throughput(): Promise<void> {
  for (const count of [1, 8, 32]) {
    const rates: Record<string, number[]> = { publish: [], notify: [], insert: [] }
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, statement] of Object.entries({ publish: PUBLISH, notify: NOTIFY, insert: INSERT }))
        rates[name]?.push((await load(count, statement)).rate)
    }
    const [publish, notify, insert] = ['publish', 'notify', 'insert'].map((name) => median(rates[name] ?? [])) as [
      number,
      number,
      number,
    ]
    const goal = count === 1 ? '' : count === 8 ? '≥ 1.5' : '≥ 2.5'
    add({
      work: `${count} publishers`,
      measured: 'messages/s, to insert-and-NOTIFY',
      value: publish,
      beside: notify,
      goal,
    })
    add({
      work: `${count} publishers`,
      measured: 'messages/s, to a bare INSERT',
      value: publish,
      beside: insert,
      goal: '≥ 0.5',
    })
  }
}

/** Milliseconds from before the statement until the text is received, p50. */
async function latency(statement: (text: string) => Promise<unknown>): Promise<number> {
  const taken: number[] = []
  for (let index = 0; index < (quick ? 5 : 60); index++) {
    const text = `latency ${index}`
    const arrived = new Promise<void>((done) => {
      received = (entry) => {
        if (entry.text === text) done()
      }
    })
    const began = performance.now()
    await Promise.all([statement(text), arrived])
    taken.push(performance.now() - began)
    await Bun.sleep(IDLE_MS)
  }
  received = () => undefined
  return median(taken)
}

async function idle(): Promise<void> {
  const notify = await latency(
    (text) =>
      sql`with put as (insert into bare (payload) values (${text}) returning payload) select pg_notify('messages', payload) from put`,
  )
  const publish = await latency((text) => sql`select pgws.publish('latency', ${text})`)
  add({
    work: 'idle, publish to receive',
    measured: 'p50 in ms, to NOTIFY',
    value: publish,
    beside: notify,
    goal: '≤ 2.5',
  })
}

/** Others' times beside a transaction that has written and stays open. */
async function longTransaction(): Promise<void> {
  const alone: number[] = []
  const beside: number[] = []
  const long = place.session()
  for (let round = 0; round < ROUNDS; round++) {
    alone.push((await load(8, PUBLISH)).p99)
    await long`begin`
    await long`select pgws.publish('long', 'x')`
    beside.push((await load(8, PUBLISH)).p99)
    await long`commit`
  }
  add({
    work: 'beside a long write transaction',
    measured: 'p99 in ms of 8 publishers, to without',
    value: median(beside),
    beside: median(alone),
    goal: '≤ 1.5',
  })
}

/** One page of one channel among many, in the database; the goal is 2 ms. The last work, for no server could go on with what is filled in. */
async function resume(): Promise<void> {
  const messages = quick ? 20_000 : Number(process.env.BENCH_MESSAGES ?? 10_000_000)
  const channels = quick ? 100 : 10_000
  journal.stop()
  await fill(sql, messages, channels)
  const [stand] = await sql`select head::int8 as head from pgws.stand()`
  const head = Number(stand?.head)
  const taken: number[] = []
  for (let index = 0; index < 200; index++) {
    const after = head - 1 - Math.floor(((index % 10) / 10) * messages * 0.01)
    const [row] =
      await sql`explain (analyze, format json) select * from pgws.read_channels(array[${`channel ${index % channels}`}::text], ${after}::bigint, 1000, 4000000)`
    // As PostgreSQL writes a plan in JSON.
    const plans = row?.['QUERY PLAN'] as readonly { readonly 'Execution Time': number }[] | undefined
    taken.push(Number(plans?.[0]?.['Execution Time']))
  }
  add({
    work: `resume of one of ${channels.toLocaleString('en')} channels among ${messages.toLocaleString('en')} messages`,
    measured: 'p50 in ms in the database, to 2 ms',
    value: median(taken),
    beside: 2,
    goal: '≤ 1',
  })
}

const only = process.argv.slice(2).filter((argument) => !argument.startsWith('--') && argument !== 'journal')
console.log('| work | measured | journal | beside | ratio | goal |\n| --- | --- | ---: | ---: | ---: | ---: |')
for await (const result of doors(only)) add(result)
const journal = await startServer()
for (const work of [idle, throughput, longTransaction, resume].filter(({ name }) => only.length === 0 || only.includes(name)))
  await work()
const out = resolve(import.meta.dir, '../../dist')
mkdirSync(out, { recursive: true })
writeFileSync(resolve(out, 'bench-journal.json'), `${JSON.stringify({ quick, results }, null, 2)}\n`)
journal.stop()
await place.stop()
process.exit()
