/**
 * Owns `npm run soak`: two servers on one database, clients that come and go, and faults at random from a seed. Ends with one line,
 * and with exit code 1 when a message was lost without a word or a copy was changed.
 *
 *     npm run soak -- [--minutes=10] [--seed=1]
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { rawConnection } from '../test/support/client.ts'
import { createLedger, type Ledger } from '../test/support/ledger.ts'
import { openReader, type Reader, type Sender, startSql, startWriter } from '../test/support/load.ts'
import { median } from '../test/support/median.ts'
import { startPostgres } from '../test/support/postgres.ts'
import { killAll, type Program, start } from '../test/support/program.ts'
import { startProxy } from '../test/support/proxy.ts'
import { createRandom } from '../test/support/random.ts'
import { token } from '../test/support/token.ts'

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' }, seed: { type: 'string' } } })
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31))
const { below, pick } = createRandom(seed)
const end = Date.now() + Number(values.minutes) * 60_000

/** Milliseconds of load and faults, after which all is counted and the next round begins. */
const ROUND = 30_000

const READERS = 10
const WRITERS = 8

spawnSync('npm', ['run', '--silent', 'build'], { cwd: resolve(import.meta.dir, '..'), stdio: 'inherit' })
const database = await startPostgres({ settings: { max_connections: '50' } })
using proxy = await startProxy(database.port)
const env = { PGWS_DB_URI: database.uri.replace(/:\d+\//, `:${proxy.port}/`), PGWS_CHECK_LISTENER_INTERVAL: '1000' }
/** The first lives from beginning to end; the second is killed and stopped at random. */
const steady = await start(env)
let other = await start(env)
const access = await token({ mode: 'rw', channels: ['soak'] })
const urlOf = ({ origin }: Program): string => `${origin}/${access}`

const total = { sent: 0, delivered: 0, duplicated: 0, told: 0, lost: [] as string[], changed: [] as string[] }
const resident = (): number =>
  Math.round((Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${steady.pid}/status`, 'utf8'))?.[1]) * 1024) / 1e6)

async function kill(side: string): Promise<void> {
  const admin = postgres(database.uri, { max: 1 })
  await admin`select pg_terminate_backend(pid) from pg_stat_activity
    where application_name = 'postgres-websockets' and query like ${side} and pid <> pg_backend_pid()`
  await admin.end()
}

async function restart(mode: 'fast' | 'immediate' | 'kill'): Promise<void> {
  await database.stop(mode)
  await Bun.sleep(below(1500))
  await database.start()
}

async function replace(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  other.signal(signal)
  await other.exited
  other = await start(env)
}

/** What befalls them, by name. Each leaves everything as it found it. */
const faults: Readonly<Record<string, () => Promise<void>>> = {
  'LISTEN killed': () => kill('%pg_listening_channels%'),
  'sender killed': () => kill('%pg_notify(%'),
  'all sessions killed': () => kill('%'),
  'restarted fast': () => restart('fast'),
  'restarted at once': () => restart('immediate'),
  'database killed': () => restart('kill'),
  'network gone': async () => {
    proxy.swallow()
    await Bun.sleep(200 + below(2500))
    proxy.pass()
  },
  'server stopped': () => replace('SIGTERM'),
  'server killed': () => replace('SIGKILL'),
  'server asleep': async () => {
    steady.signal('SIGSTOP')
    await Bun.sleep(200 + below(1500))
    steady.signal('SIGCONT')
  },
  'readers stalled': async () => {
    const path = new URL(urlOf(steady)).pathname
    const sockets = Array.from({ length: 20 }, () => rawConnection(steady.port, path).pause())
    await Bun.sleep(below(3000))
    for (const socket of sockets) socket.destroy()
  },
}

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

let writers = 0

async function round(): Promise<void> {
  const until = Math.min(Date.now() + ROUND, end)
  const ledger: Ledger = createLedger()
  const reader = async (program: Program): Promise<Reader> => {
    const opened = await openReader(urlOf(program), ledger)
    const stop = async () => {
      const result = await opened.stop()
      total.delivered += result.delivered
      total.duplicated += result.duplicated
      total.told += result.told
      total.lost.push(...result.lost)
      total.changed.push(...result.changed)
      return result
    }
    return { ...opened, stop }
  }
  const somewhere = (): Program => pick([steady, other])
  const staying = await Promise.all(Array.from({ length: 4 }, () => reader(steady)))
  const sql = startSql(database.uri, 'soak', 'sql', ledger)
  const readers = Array.from({ length: READERS }, () => keep<Reader>(until, () => reader(somewhere())))
  const senders = Array.from({ length: WRITERS }, () =>
    keep<Sender>(until, () => startWriter(urlOf(somewhere()), `w${++writers}`, ledger)),
  )
  while (Date.now() < until - 3000) {
    await Bun.sleep(500 + below(3000))
    const name = pick(Object.keys(faults))
    console.log(`${new Date().toISOString()} ${name}`)
    await faults[name]?.()
  }
  for (const sender of [...(await Promise.all(senders)), sql]) await sender?.stop()
  await Promise.all(
    [...(await Promise.all(readers)), ...staying].map(async (one) => {
      await one?.whole()
      await one?.stop()
    }),
  )
  total.sent += ledger.sent()
}

const memory: number[] = []
while (Date.now() < end - 5000) {
  await round()
  memory.push(resident())
  console.log(`lost without a word: ${total.lost.length}, changed copies: ${total.changed.length}, memory ${memory.at(-1)} MB`)
}
// From one round to the next it goes up and down with what was held back; medians tell whether it grows.
const third = Math.ceil(memory.length / 3)
const { sent, delivered, duplicated, told, lost, changed } = total
for (const line of [...lost, ...changed].slice(0, 20)) console.error(line)
console.log(
  `seed ${seed}, ${values.minutes} minutes: ${sent} sent, ${delivered} delivered, ${duplicated} duplicated, ${told} told as missed, ` +
    `lost without a word: ${lost.length}, ` +
    `memory ${median(memory.slice(0, third))} MB in the first third, ${median(memory.slice(-third))} MB in the last, ${Math.max(...memory)} MB at most`,
)
await steady.stop()
await other.stop()
killAll()
await database.stop()
process.exit(lost.length + changed.length > 0 ? 1 : 0)
