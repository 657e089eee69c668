/** Owns what the scaling bench has a number of servers do, and what is measured of it. */
import { spawn } from 'node:child_process'
import { resolve } from 'node:path'
import { type Crowd, openCrowd } from '../../test/support/crowd.ts'
import type { Running } from '../subjects.ts'
import type { Database, Usage } from './database.ts'

export interface Place {
  readonly servers: readonly Running[]
  readonly database: Database
  /** A token for any channel. */
  readonly given: string
  readonly quick: boolean
}

interface Work {
  readonly name: string
  run(): Promise<Readonly<Record<string, number>>>
}

const CHANNEL = 'postgres-websockets-listener'

/** What all servers and the database used for some work. */
interface Used extends Usage {
  readonly seconds: number
  readonly servers: number
}

export function worksOf({ servers, database, given, quick }: Place): readonly Work[] {
  const { sql } = database
  const size = (full: number, short: number): number => (quick ? short : full)
  const path = (channel: string, query = ''): string => `/${channel}/${given}${query}`

  async function using(work: () => Promise<unknown>): Promise<Used> {
    const cpu = (): number => servers.reduce((sum, server) => sum + server.cpu(), 0)
    const before = await database.usage()
    const began = { cpu: cpu(), at: performance.now() }
    await work()
    const seconds = (performance.now() - began.at) / 1000
    const used = cpu() - began.cpu
    const after = await database.usage()
    const between = (name: keyof Usage): number => after[name] - before[name]
    return {
      cpu: between('cpu'),
      wakeUps: between('wakeUps'),
      statements: between('statements'),
      reads: between('reads'),
      wal: between('wal'),
      sessions: after.sessions,
      memory: after.memory,
      seconds,
      servers: used,
    }
  }

  /** One reader on each server. */
  async function readers(channel: string) {
    const crowds = await Promise.all(servers.map(({ port }) => openCrowd(port, [path(channel)])))
    return {
      expect: (messages: number) => Promise.all(crowds.map((crowd) => crowd.expect(messages))),
      close: () => Promise.all(crowds.map((crowd) => crowd.close())),
    }
  }

  async function idle() {
    const { cpu, wakeUps, statements, seconds, servers: all, sessions, memory } = await using(() => Bun.sleep(size(5000, 500)))
    const count = servers.length
    return {
      'sessions in the database, each server': sessions / count,
      'statements a second, all servers': statements / seconds,
      'wake-ups of sessions a second, all servers': wakeUps / seconds,
      'CPU-ms a second, PostgreSQL': (cpu * 1000) / seconds,
      'CPU-ms a second, all servers': (all * 1000) / seconds,
      'MB of private memory of its sessions, each server': memory / count / 1e6,
      'MB resident, the newest server': (servers.at(-1)?.memory() ?? Number.NaN) / 1e6,
    }
  }

  /** Each waits until it has arrived at all servers' sockets. The first are to warm up. */
  async function oneByOne(channel: string, publish: (text: string) => PromiseLike<unknown>) {
    const crowd = await readers(channel)
    const times: number[] = []
    const send = async (messages: number): Promise<void> => {
      for (let index = 0; index < messages; index++) {
        const arrived = crowd.expect(1)
        const began = performance.now()
        await Promise.all([publish(JSON.stringify({ channel, payload: String(index) })), arrived])
        times.push(performance.now() - began)
      }
    }
    await send(size(100, 5))
    times.length = 0
    const messages = size(500, 20)
    const { cpu, wakeUps, statements, wal, reads, servers: all } = await using(() => send(messages))
    await crowd.close()
    times.sort((one, other) => one - other)
    const at = (share: number): number => times[Math.floor(times.length * share)] ?? Number.NaN
    return {
      'p50 in ms, to the last of the sockets': at(0.5),
      'p99 in ms': at(0.99),
      'wake-ups of sessions a message': wakeUps / messages,
      'CPU-µs a message, PostgreSQL': (cpu / messages) * 1e6,
      'CPU-µs a message, all servers': (all / messages) * 1e6,
      'statements of the servers a message': statements / messages,
      'reads of the journal a message, each server': reads / messages / servers.length,
      'bytes of WAL a message': wal / messages,
    }
  }

  async function burst(channel: string, call: string) {
    const crowd = await readers(channel)
    const messages = size(20_000, 500)
    const {
      cpu,
      seconds,
      wakeUps,
      statements,
      wal,
      servers: all,
    } = await using(async () => {
      const arrived = crowd.expect(messages)
      await sql.unsafe(`select count(${call}) from generate_series(1, ${messages}) as n`)
      await arrived
    })
    await crowd.close()
    return {
      'messages/s, at all sockets': messages / seconds,
      'CPU-µs a message, PostgreSQL': (cpu / messages) * 1e6,
      'CPU-µs a message, all servers': (all / messages) * 1e6,
      'wake-ups of sessions, in all': wakeUps,
      'statements of the servers, in all': statements,
      'bytes of WAL a message': wal / messages,
    }
  }

  /** Transactions of sessions that wait for nobody but the database. */
  async function publishers(channel: string, statement: string) {
    const crowd = await readers(channel)
    let load = { rate: 0, p99: 0 }
    const {
      wakeUps,
      cpu,
      servers: all,
    } = await using(async () => {
      load = await publishing(database.uri, 8, size(1500, 200), statement)
    })
    await crowd.close()
    // A quarter more is published to warm up.
    const messages = load.rate * 1.25 * (size(1500, 200) / 1000)
    return {
      'transactions/s': load.rate,
      'p99 of a transaction in ms': load.p99,
      'wake-ups of sessions a message': wakeUps / messages,
      'CPU-µs a message, PostgreSQL': (cpu / messages) * 1e6,
      'CPU-µs a message, all servers': (all / messages) * 1e6,
    }
  }

  /** Clients spread over the servers; each reads its own channel alone. */
  async function writes(kind: string) {
    const [clients, each] = [size(72, 6), size(400, 20)]
    const counts = servers.map((_, index) => Math.floor((clients + index) / servers.length))
    const crowds = await Promise.all(
      servers.map(({ port }, index) =>
        openCrowd(
          port,
          Array.from({ length: counts[index] ?? 0 }, (_, client) => path(`${kind}-${index}-${client}`)),
        ),
      ),
    )
    const send = async (): Promise<void> => {
      const arrived = crowds.map((crowd, index) => crowd.expect((counts[index] ?? 0) * each))
      for (const [index, crowd] of crowds.entries())
        for (let client = 0; client < (counts[index] ?? 0); client++) crowd.write(client, 'x'.repeat(100), each)
      await Promise.all(arrived)
    }
    await send()
    const { cpu, seconds, statements, wal, servers: all } = await using(send)
    for (const crowd of crowds) await crowd.close()
    const messages = clients * each
    return {
      'messages/s, all servers together': messages / seconds,
      'CPU-µs a message, PostgreSQL': (cpu / messages) * 1e6,
      'CPU-µs a message, all servers': (all / messages) * 1e6,
      'statements of the servers a thousand messages': (statements / messages) * 1000,
      'bytes of WAL a message': wal / messages,
    }
  }

  /** Ends the bench where positions differ. */
  async function positions() {
    const messages = size(500, 50)
    const seen = servers.map((): string[] => [])
    const sockets: WebSocket[] = []
    let done = (): void => undefined
    const all = new Promise<void>((resolve) => {
      done = resolve
    })
    for (const [index, { port }] of servers.entries()) {
      const socket = new WebSocket(`ws://127.0.0.1:${port}${path('positions')}`, 'pgws.json')
      sockets.push(socket)
      await new Promise((opened, failed) => {
        socket.onopen = opened
        socket.onerror = failed
      })
      socket.onmessage = ({ data }) => {
        const { position, text } = JSON.parse(String(data))
        if (text !== undefined) seen[index]?.push(`${position} ${text}`)
        if (seen.every(({ length }) => length === messages)) done()
      }
    }
    await sql`select count(pgws.publish('positions', n::text)) from generate_series(1, ${messages}::int) as n`
    await all
    for (const socket of sockets) socket.close()
    const same = seen.filter((list) => list.join() === seen[0]?.join()).length
    if (same !== servers.length) throw new Error(`positions differ: ${JSON.stringify(seen.map((list) => list.slice(0, 5)))}`)
    return { 'servers with the same positions and order': same }
  }

  async function opening() {
    const clients = size(1800, 60)
    const each = clients / servers.length
    let crowds: readonly Crowd[] = []
    const { statements, servers: all } = await using(async () => {
      crowds = await Promise.all(servers.map(({ port }) => openCrowd(port, Array<string>(each).fill(path('open')), each)))
    })
    for (const crowd of crowds) await crowd.close()
    return { 'CPU-ms a connection, all servers': (all / clients) * 1000, 'statements of the servers, in all': statements }
  }

  // All differ: of equal notifications of one transaction, PostgreSQL sends one.
  const json = `json_build_object('channel', 'burst', 'n', clock_timestamp(), 'payload', repeat('x', 100))::text`
  const notified = `pg_notify('${CHANNEL}', ${json})`
  const published = `pgws.publish('burst', ${json})`
  return [
    { name: 'idle', run: idle },
    { name: 'NOTIFY, one by one', run: () => oneByOne('one', (text) => sql`select pg_notify(${CHANNEL}, ${text})`) },
    { name: 'journal, one by one', run: () => oneByOne('one', (text) => sql`select pgws.publish('one', ${text})`) },
    { name: 'NOTIFY, one transaction of 20,000', run: () => burst('burst', notified) },
    { name: 'journal, one transaction of 20,000', run: () => burst('burst', published) },
    { name: 'NOTIFY, 8 sessions publish', run: () => publishers('burst', `select ${notified}`) },
    { name: 'journal, 8 sessions publish', run: () => publishers('burst', `select ${published}`) },
    { name: 'NOTIFY, messages of 72 clients', run: () => writes('write') },
    { name: 'journal, messages of 72 clients', run: () => writes('kept') },
    { name: 'journal, one reader on each server', run: positions },
    { name: 'opening 1,800 connections', run: opening },
  ]
}

async function publishing(uri: string, sessions: number, milliseconds: number, statement: string) {
  const program = resolve(import.meta.dir, '../journal/publishers.ts')
  const child = spawn(process.execPath, [program, uri, String(sessions), String(milliseconds), statement], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.on('data', (chunk) => (output += chunk))
  await new Promise((closed) => child.once('close', closed))
  const found: { readonly rate: number; readonly p99: number } = JSON.parse(output)
  return found
}
