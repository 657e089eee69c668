/**
 * Owns `npm run soak`: three servers on one database, one of them with TLS, clients that come and go, and faults at random from a seed.
 * Ends with one line, and with exit code 1 when a message was lost without a word, changed or out of order. On channels of the journal
 * none may be missed, come twice or be told as missed, also by readers that leave and come back.
 *
 *     npm run soak -- [--minutes=10] [--seed=1] [--fault=NAME]
 */
import { parseArgs } from 'node:util'
import type { KeptVerdict } from '../test/support/kept-ledger.ts'
import { createLedger, type Ledger } from '../test/support/ledger.ts'
import {
  DIRECT,
  openReader,
  type Reader,
  type Sender,
  settledTruth,
  startSql,
  startWriter,
  type WriterOptions,
} from '../test/support/load.ts'
import { median } from '../test/support/median.ts'
import { residentBytes } from '../test/support/memory.ts'
import { startPostgres } from '../test/support/postgres.ts'
import { killAll } from '../test/support/program.ts'
import { createRandom } from '../test/support/random.ts'
import { token } from '../test/support/token.ts'
import { startWitness } from '../test/support/witness.ts'
import { type KeptLoad, startKeptLoad } from './soak/kept.ts'
import { type Place, SETTINGS, startScene } from './soak/scene.ts'

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '10' }, seed: { type: 'string' }, fault: { type: 'string' } },
})
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31))
const random = createRandom(seed)
const { below, pick } = random
const end = Date.now() + Number(values.minutes) * 60_000

/** Milliseconds of load and faults, after which all is counted and the next round begins. */
const ROUND = 30_000

const READERS = 10
const WRITERS = 8

/** Rounds of cuts at most, until messages were sent twice. */
const CUT_ROUNDS = 5

const channels = ['soak-1', 'soak-2', 'soak-3', 'soak-4']
const databaseChannels = Array.from({ length: 50 }, (_, index) => `${DIRECT}${index}`)
const some = (from: readonly string[], count: number): string[] => [...new Set(Array.from({ length: count }, () => pick(from)))]

const database = await startPostgres({ settings: SETTINGS })
const witness = await startWitness(database)
let ledger: Ledger = createLedger()
let kept: KeptLoad | undefined
const scene = await startScene(database, random, (place) => {
  ledger.abandon(place)
  kept?.abandon(place)
})

const total = {
  sent: 0,
  delivered: 0,
  duplicated: 0,
  told: 0,
  lost: [] as string[],
  changed: [] as string[],
  disordered: [] as string[],
}

const keptTotal = { published: 0, read: 0, missed: 0, twice: 0, disordered: 0, wrong: 0 }

/** Keeps a place filled: somebody who leaves after a while, or loses the connection, is followed by another. */
async function keep<T extends { stop(): Promise<unknown> }>(until: number, open: () => Promise<T>): Promise<T | undefined> {
  for (;;) {
    const one = await open().catch(() => undefined)
    const stay = one ? 1000 + below(ROUND) : 100
    if (Date.now() + stay >= until) {
      await Bun.sleep(Math.max(0, until - Date.now()))
      return one
    }
    await Bun.sleep(stay)
    await one?.stop()
  }
}

async function urlTo({ origin }: Place, mode: string, names: readonly string[]): Promise<string> {
  return `${origin}/${await token({ mode, channels: names })}`
}

async function readerAt(place: Place, names: readonly string[]): Promise<Reader> {
  return openReader(await urlTo(place, 'r', names), names, ledger, witness, place.ca)
}

let writers = 0
let rounds = 0

/** @param flood what is sent at once and how often, where that is more than a trickle. */
async function writerAt(place: Place, flood: Pick<WriterOptions, 'handful' | 'pace'> = {}): Promise<Sender> {
  const url = await urlTo(place, 'w', some(channels, 1 + below(2)))
  return startWriter(url, `w${++writers}`, ledger, { home: place, ...flood, ...(place.ca ? { ca: place.ca } : {}) })
}

async function round(until: number, names: readonly string[]): Promise<void> {
  ledger = createLedger()
  await witness.clear()
  const somewhere = (): Place => pick(scene.places())
  const all = [...channels, ...databaseChannels]
  const staying = await Promise.all([...scene.steady, ...scene.steady].map((place) => readerAt(place, all)))
  const sql = [
    startSql(database.uri, channels, `sql-${++writers}`, ledger),
    startSql(database.uri, databaseChannels, `sql-${++writers}`, ledger),
  ]
  kept = await startKeptLoad({
    uri: database.uri,
    random,
    steady: scene.steady,
    places: scene.places,
    round: ++rounds,
    until: until - 3000,
  })
  const readers = Array.from({ length: READERS }, () =>
    keep(until, () => readerAt(somewhere(), [...some(channels, 2), ...some(databaseChannels, 10)])),
  )
  // One sends so much at once that several batches are under way.
  const senders = Array.from({ length: WRITERS }, (_, index) =>
    keep(until, () => writerAt(somewhere(), index === 0 ? { handful: 1500, pace: 300 } : {})),
  )
  while (Date.now() < until - 3000) {
    await Bun.sleep(500 + below(3000))
    const name = pick(names)
    console.log(`${new Date().toISOString()} ${name}`)
    await scene.faults[name]?.()
  }
  for (const sender of [...(await Promise.all(senders)), ...sql]) await sender?.stop()
  await Promise.all([...(await Promise.all(readers)), ...staying].map((one) => one?.stop()))
  const verdict = ledger.judge(await settledTruth(ledger, witness))
  total.sent += verdict.sent
  total.delivered += verdict.delivered
  total.duplicated += verdict.duplicated
  total.told += verdict.told
  for (const fault of ['lost', 'changed', 'disordered'] as const) {
    total[fault].push(...verdict[fault])
    for (const line of verdict[fault].slice(0, 5)) console.error(`${fault}: ${line}`)
  }
  judgeKept(await kept.judge())
  memory.push(resident())
  console.log(
    `${verdict.sent} sent, ${verdict.duplicated} duplicated, ${verdict.told} told; findings so far: ${total.lost.length} lost, ` +
      `${total.changed.length} changed, ${total.disordered.length} out of order; memory ${memory.at(-1)} MB`,
  )
}

function judgeKept(verdict: KeptVerdict): void {
  keptTotal.published += verdict.published
  keptTotal.read += verdict.read
  for (const fault of ['missed', 'twice', 'disordered', 'wrong'] as const) {
    keptTotal[fault] += verdict[fault].length
    for (const line of verdict[fault].slice(0, 5)) console.error(`journal, ${fault}: ${line}`)
  }
  console.log(
    `journal: ${verdict.published} published, ${verdict.read} read, missed: ${verdict.missed.length}, twice: ${verdict.twice.length}`,
  )
}

const memory: number[] = []
const resident = (): number => Math.round(residentBytes(scene.steady[0]?.pid) / 1e6)

const names = values.fault === undefined ? Object.keys(scene.faults) : [values.fault]
while (Date.now() < end - 5000) await round(Math.min(Date.now() + ROUND, end), names)
// Without any copies nothing would be known about them.
for (let cuts = 0; total.duplicated === 0 && cuts < CUT_ROUNDS; cuts++) await round(Date.now() + ROUND / 2, ['answers cut off'])

// From one round to the next it goes up and down with what was held back; medians tell whether it grows.
const third = Math.ceil(memory.length / 3)
const { sent, delivered, duplicated, told, lost, changed, disordered } = total
console.log(
  `seed ${seed}, ${values.minutes} minutes: ${sent} sent, ${delivered} delivered, ${duplicated} duplicated, ${told} told as missed, ` +
    `lost without a word: ${lost.length}, changed: ${changed.length}, out of order: ${disordered.length}, ` +
    `memory ${median(memory.slice(0, third))} MB in the first third, ${median(memory.slice(-third))} MB in the last, ${Math.max(...memory)} MB at most`,
)
console.log(
  `journal: ${keptTotal.published} published, ${keptTotal.read} read, missed: ${keptTotal.missed}, twice: ${keptTotal.twice}, ` +
    `out of order: ${keptTotal.disordered}, rolled back or told as missed: ${keptTotal.wrong}`,
)
await scene.stop()
killAll()
await database.stop()
const { missed, twice, wrong } = keptTotal
const findings = lost.length + changed.length + disordered.length + missed + twice + wrong + keptTotal.disordered
process.exit(findings > 0 ? 1 : 0)
