/**
 * Owns `npm run bench`: one load on four servers side by side in one run, as ratios. `--quick` is a short form that only shows that it
 * works; its figures decide nothing.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import postgres from 'postgres'
import { schema } from '../lib/database/schema/install.ts'
import { type Crowd, openCrowd } from '../test/support/crowd.ts'
import { median } from '../test/support/median.ts'
import { startPostgres } from '../test/support/postgres.ts'
import { token } from '../test/support/token.ts'
import { openPosters, openStreams } from './http.ts'
import { own, type Running, start, subjects } from './subjects.ts'

const quick = process.argv.includes('--quick')
const only = process.argv.slice(2).filter((argument) => !argument.startsWith('--'))
const ROUNDS = quick ? 1 : 3

// They have subjects and tables of their own, and end the process.
if (only.includes('journal')) await import('./journal/run.ts')
if (only.includes('scaling')) await import('./scaling/run.ts')

/** Milliseconds in which work is repeated until the compilers have done theirs, once at least, and then to be measured. */
const WARM_UP_MS = quick ? 0 : 1500
const MEASURED_MS = 3000
const MEASURED = 10

/** Milliseconds after which garbage is collected and memory is what idling takes. */
const SETTLED_MS = quick ? 100 : 2500

/** Milliseconds in which nobody comes or goes: some signs of life. */
const UNCHANGED_MS = quick ? 1000 : 20_000

const CHANNEL = 'postgres-websockets-listener'

const database = await startPostgres({ settings: { max_connections: '100' } })
const sql = postgres(database.uri, { max: 1, onnotice: () => undefined })
const given = await token({ mode: 'rw' })

const path = (channel: string): string => `/${channel}/${given}`

const times = (count: number, text: string): string[] => Array<string>(count).fill(text)

/** Notifies messages in one transaction. */
const notify = (channel: string, count: number) =>
  sql`select count(pg_notify(${CHANNEL}, json_build_object('event', 'WebsocketMessage', 'channel', ${channel}::text, 'n', n, 'payload', repeat('x', 100))::text))
    from generate_series(1, ${count}::int) as n`

type Figures = Record<string, number>

interface Work {
  readonly name: string
  /** What is measured, with its unit; the first is what the table compares. */
  run(server: Running): Promise<Figures>
  readonly subjects?: readonly string[]
}

const burst = async (server: Running, readers: number, messages: number, protocol?: string): Promise<Figures> =>
  burstTo(await openCrowd(server.port, times(readers, path('burst')), readers, protocol), server, readers, messages)

async function burstTo(
  crowd: Pick<Crowd, 'expect' | 'close'>,
  server: Running,
  readers: number,
  messages: number,
): Promise<Figures> {
  const deliveries = readers * messages
  const figures = await repeated(server, async () => {
    const all = crowd.expect(deliveries)
    await notify('burst', messages)
    await all
  })
  await crowd.close()
  return {
    'CPU-s per million deliveries': (figures.cpu / deliveries) * 1e6,
    'deliveries/s': deliveries / figures.seconds,
  }
}

/** Medians of one round of work, in seconds. */
async function repeated(
  server: Running,
  round: () => Promise<void>,
): Promise<{ readonly seconds: number; readonly cpu: number }> {
  const warm = performance.now() + WARM_UP_MS
  do await round()
  while (performance.now() < warm)
  const used: number[] = []
  const taken: number[] = []
  const end = performance.now() + MEASURED_MS
  while (taken.length === 0 || (taken.length < MEASURED && performance.now() < end)) {
    const cpu = server.cpu()
    const began = performance.now()
    await round()
    taken.push((performance.now() - began) / 1000)
    used.push(server.cpu() - cpu)
  }
  return { seconds: median(taken), cpu: median(used) }
}

/** The ratio of a figure of another door to the same of plain sockets, on one server. */
async function beside(figure: string, plain: Promise<Figures>, json: () => Promise<Figures>): Promise<Figures> {
  const { [figure]: first = Number.NaN } = await plain
  const figures = await json()
  return { [`${figure}, to plain`]: (figures[figure] ?? Number.NaN) / first, ...figures }
}

async function paced(server: Running, readers: number, messages: number): Promise<Figures> {
  const crowd = await openCrowd(server.port, times(readers, path('paced')))
  const latencies: number[] = []
  const cpu = server.cpu()
  for (let index = 0; index < messages; index++) {
    const began = performance.now()
    const all = crowd.expect(readers)
    void notify('paced', 1).execute()
    await all
    latencies.push(performance.now() - began)
    await Bun.sleep(Math.max(0, 20 - (performance.now() - began)))
  }
  const used = server.cpu() - cpu
  await crowd.close()
  return { 'CPU-s per million deliveries': (used / (readers * messages)) * 1e6, 'p50 in ms': median(latencies) }
}

/** Each alone on its channel: what comes back to a writer has been in the database. */
const write = (server: Running, writers: number, messages: number): Promise<Figures> =>
  writeAs(server, writers, messages, path, (writer) => `message of writer ${writer}`)

/** An answer to each publish, and nothing else. */
const publish = (server: Running, writers: number, messages: number): Promise<Figures> =>
  writeAs(
    server,
    writers,
    messages,
    () => `${path('none')}?subscribe=none`,
    (writer) => JSON.stringify({ command: 'publish', channel: `write-${writer}`, text: `message of writer ${writer}` }),
    'pgws.json',
  )

async function writeAs(
  server: Running,
  writers: number,
  messages: number,
  pathOf: (channel: string) => string,
  message: (writer: number) => string,
  protocol?: string,
): Promise<Figures> {
  const paths = Array.from({ length: writers }, (_, index) => pathOf(`write-${index}`))
  const crowd = await openCrowd(server.port, paths, writers, protocol)
  const sent = writers * messages
  const figures = await repeated(server, async () => {
    const all = crowd.expect(sent)
    for (let writer = 0; writer < writers; writer++) crowd.write(writer, message(writer), messages)
    await all
  })
  await crowd.close()
  return { 'messages/s': sent / figures.seconds, 'CPU-µs per message': (figures.cpu / sent) * 1e6 }
}

async function posts(server: Running, clients: number, messages: number): Promise<Figures> {
  const crowd = await openPosters(
    server.port,
    Array.from({ length: clients }, (_, index) => path(`post-${index}`)),
  )
  const figures = await repeated(server, () => crowd.post(messages))
  await crowd.close()
  const sent = clients * messages
  return { 'messages/s': sent / figures.seconds, 'CPU-µs per message': (figures.cpu / sent) * 1e6 }
}

/** What the first connections cost beside the later ones is the code that they are the first to need. */
async function idle(server: Running, openIdle: typeof openStreams = openCrowd): Promise<Figures> {
  const figures: Figures = {}
  const crowds: Pick<Crowd, 'close'>[] = []
  await Bun.sleep(SETTLED_MS)
  const before = server.memory()
  let open = 0
  let earlier = before
  for (const count of quick ? [100, 100] : [1000, 1000, 8000]) {
    crowds.push(await openIdle(server.port, times(count, path('idle'))))
    open += count
    await Bun.sleep(SETTLED_MS)
    const now = server.memory()
    if (open === 2 * count) figures[`kB each of the second ${show(count)}`] = (now - earlier) / count / 1000
    else figures[`kB each of ${show(open)}`] = (now - before) / open / 1000
    earlier = now
  }
  for (const crowd of crowds) await crowd.close()
  return figures
}

async function opening(server: Running, connections: number): Promise<Figures> {
  const cpu = server.cpu()
  const crowd = await openCrowd(server.port, times(connections, path('open')), connections)
  const used = server.cpu() - cpu
  await crowd.close()
  return { 'CPU-ms per connection': (used / connections) * 1000 }
}

/** As many connections at once, each with a token of its own, to this server and to one whose database decides on each. */
async function openingDecided(connections: number): Promise<Figures> {
  await sql.unsafe(`create schema if not exists bench;
    create or replace function bench.may(channel text) returns text language plpgsql stable as
    $$ begin return case when current_setting('request.jwt.claims')::json->>'mode' = 'rw' then 'rw' end; end $$`)
  const paths = await Promise.all(
    Array.from({ length: connections }, async (_, index) => `/open/${await token({ mode: 'rw', sub: `${index}` })}`),
  )
  const seconds = async (more: Readonly<Record<string, string>>): Promise<number> => {
    const server = await start(own, database.uri, given, more)
    const warm = await openCrowd(server.port, paths, connections)
    await warm.close()
    const began = performance.now()
    const crowd = await openCrowd(server.port, paths, connections)
    const took = (performance.now() - began) / 1000
    await crowd.close()
    await server.stop()
    return took
  }
  const without = await seconds({})
  return { 'times the time without': (await seconds({ PGWS_AUTHORIZE_FUNCTION: 'bench.may' })) / without }
}

/** What it costs that the database sees who is connected, while nobody comes or goes. */
async function presence(connections: number): Promise<Figures> {
  await sql.unsafe(schema)
  const server = await start(own, database.uri, given, { PGWS_CONNECTIONS: 'True', PGWS_JOURNAL: 'True' })
  const paths = Array.from({ length: connections }, async (_, index) => `/here/${await token({ mode: 'r', sub: `${index}` })}`)
  const crowd = await openCrowd(server.port, await Promise.all(paths))
  const written = async (): Promise<number> => Number((await sql`select count(*) from pgws.connections`)[0]?.count)
  while ((await written()) < connections) await Bun.sleep(50)
  await Bun.sleep(SETTLED_MS)
  const cpu = server.cpu()
  await Bun.sleep(UNCHANGED_MS)
  const used = server.cpu() - cpu
  await crowd.close()
  await server.stop()
  return { '% of a core': (used / (UNCHANGED_MS / 1000)) * 100 }
}

/** Two channels to a client, none to two; one message to each channel, in as many transactions as make 20,000 messages. */
async function manyChannels(server: Running, channels: number): Promise<Figures> {
  const tokens = await Promise.all(
    Array.from({ length: channels / 2 }, (_, index) =>
      token({ mode: 'r', channels: [`many-${2 * index}`, `many-${2 * index + 1}`] }),
    ),
  )
  const crowd = await openCrowd(
    server.port,
    tokens.map((text) => `/${text}`),
  )
  const transactions = 20_000 / channels
  let cpu = 0
  for (const warmUp of [true, false]) {
    const before = server.cpu()
    for (let transaction = 0; transaction < transactions; transaction++) {
      const all = crowd.expect(channels)
      await sql`select count(pg_notify(${CHANNEL}, json_build_object('channel', 'many-' || n, 'payload', repeat('x', 100))::text))
        from generate_series(0, ${channels - 1}::int) as n`
      await all
    }
    if (!warmUp) cpu = server.cpu() - before
  }
  await crowd.close()
  return { 'CPU-µs per message': (cpu / (transactions * channels)) * 1e6 }
}

const size = (full: number, short: number): number => (quick ? short : full)
const ours = ['this server']

const works: readonly Work[] = [
  { name: 'burst to 1,000 readers', run: (server) => burst(server, size(1000, 100), size(1000, 100)) },
  { name: 'burst to 50 readers', run: (server) => burst(server, size(50, 10), size(20_000, 1000)) },
  { name: 'paced to 1,000 readers', run: (server) => paced(server, size(1000, 100), size(250, 10)) },
  {
    name: 'paced to one reader',
    run: (server) => paced(server, 1, size(300, 20)).then(({ 'p50 in ms': p50 = 0 }) => ({ 'p50 in ms': p50 })),
  },
  { name: 'writes of 20 clients', run: (server) => write(server, size(20, 5), size(1000, 100)) },
  {
    name: 'burst to 1,000 pgws.json readers',
    subjects: ours,
    run(server) {
      const burstAs = (protocol?: string) => burst(server, size(1000, 100), size(1000, 100), protocol)
      return beside('CPU-s per million deliveries', burstAs(), () => burstAs('pgws.json'))
    },
  },
  {
    name: 'acknowledged publishes of 20 clients',
    subjects: ours,
    run: (server) =>
      beside('messages/s', write(server, size(20, 5), size(1000, 100)), () => publish(server, size(20, 5), size(1000, 100))),
  },
  {
    name: 'messages through a function that returns its payload',
    subjects: ['this server'],
    async run(server) {
      await sql`create or replace function public.bench_echo(channel text, payload text) returns text language plpgsql as 'begin return payload; end'`
      const handling = await start(own, database.uri, given, { PGWS_MESSAGE_FUNCTION: 'public.bench_echo' })
      const writeTo = (one: Running) => write(one, size(20, 5), size(1000, 100))
      const figures = await beside('messages/s', writeTo(server), () => writeTo(handling))
      await handling.stop()
      return figures
    },
  },
  {
    name: 'burst to 1,000 event streams',
    subjects: ours,
    async run(server) {
      const [readers, messages] = [size(1000, 100), size(1000, 100)]
      const streams = async () =>
        burstTo(await openStreams(server.port, times(readers, path('burst'))), server, readers, messages)
      return beside('CPU-s per million deliveries', burst(server, readers, messages), streams)
    },
  },
  {
    name: 'events to 1,000 streams',
    subjects: ['this server', 'peer'],
    run: async (server) =>
      burstTo(await openStreams(server.port, times(size(1000, 100), path('burst'))), server, size(1000, 100), size(1000, 100)),
  },
  {
    name: 'posts of 20 clients',
    subjects: ['this server', 'ceiling', 'on Deno'],
    run: (server) => posts(server, size(20, 5), size(1000, 50)),
  },
  { name: 'idle connections', run: (server) => idle(server) },
  { name: 'idle event streams', subjects: ours, run: (server) => idle(server, openStreams) },
  { name: 'opening 5,000 at once', run: (server) => opening(server, size(5000, 100)) },
  {
    name: 'opening 5,000 with a decision of the database',
    subjects: ['this server'],
    run: () => openingDecided(size(5000, 100)),
  },
  { name: 'presence of 10,000', subjects: ours, run: () => presence(size(10_000, 100)) },
  { name: '200 channels', subjects: ours, run: (server) => manyChannels(server, 200) },
  { name: '20,000 channels', subjects: ours, run: (server) => manyChannels(server, size(20_000, 1000)) },
  {
    name: 'start',
    run: async (server) => {
      await Bun.sleep(SETTLED_MS)
      return { 'ms to listening': server.startedIn, 'MB resident': server.memory() / 1e6 }
    },
  },
]

const results: { work: string; unit: string; values: Record<string, number> }[] = []
const show = (value: number | undefined): string =>
  value === undefined ? '–' : value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3)

/** Each subject's figures, and how many times each of the compared ones' this server's are. */
const compared = subjects.map(({ name }) => name).filter((name) => ['ceiling', 'peer', 'earlier'].includes(name))
const columns = ['work', 'measured', ...subjects.map(({ name }) => name), ...compared.map((name) => `to the ${name}`)]
const row = (cells: readonly string[]): void => console.log(`| ${cells.join(' | ')} |`)
row(columns)
row(columns.map((_, index) => (index < 2 ? '---' : '---:')))
for (const work of works.filter(({ name }) => only.length === 0 || only.some((text) => name.includes(text)))) {
  const samples = new Map<string, Map<string, number[]>>()
  for (let round = 0; round < ROUNDS; round++) {
    for (const subject of subjects.filter(({ name }) => work.subjects?.includes(name) ?? true)) {
      const server = await start(subject, database.uri, given)
      const figures = await work.run(server)
      await server.stop()
      for (const [unit, value] of Object.entries(figures)) {
        const byName = samples.get(unit) ?? new Map<string, number[]>()
        samples.set(unit, byName.set(subject.name, [...(byName.get(subject.name) ?? []), value]))
      }
    }
  }
  for (const [unit, byName] of samples) {
    const values = Object.fromEntries([...byName].map(([name, list]) => [name, median(list)]))
    const own = values['this server'] ?? Number.NaN
    const ratio = (other: number | undefined): string => (other === undefined ? '–' : `${(own / other).toPrecision(3)} ×`)
    row([work.name, unit, ...subjects.map(({ name }) => show(values[name])), ...compared.map((name) => ratio(values[name]))])
    results.push({ work: work.name, unit, values })
  }
}

const out = resolve(import.meta.dir, '../dist')
mkdirSync(out, { recursive: true })
writeFileSync(resolve(out, 'bench.json'), `${JSON.stringify({ quick, rounds: ROUNDS, results }, null, 2)}\n`)
await sql.end()
await database.stop()
process.exit()
