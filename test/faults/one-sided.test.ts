import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { type Client, connect, nextNew } from '../support/client.ts'
import { stopBackends } from '../support/faults.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { type Direction, startProxy } from '../support/proxy.ts'
import { token } from '../support/token.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.stop())

interface Line extends AsyncDisposable {
  readonly proxy: Awaited<ReturnType<typeof startProxy>>
  readonly program: Program
  readonly client: Client
}

/** A program behind a proxy of its own, with a client whose messages go round. */
async function startLine(): Promise<Line> {
  const proxy = await startProxy(server.port)
  const program = await start({
    PGWS_DB_URI: server.uri.replace(/:\d+\//, `:${proxy.port}/`),
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
  })
  const client = await connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)
  client.send('before')
  await arrives(client, ['before'])
  return {
    proxy,
    program,
    client,
    async [Symbol.asyncDispose]() {
      await client.close()
      await program.stop()
      proxy[Symbol.dispose]()
    },
  }
}

/** Somebody else's notifications, ten a second, which arrive whatever becomes of our own. */
function startStrangers(): AsyncDisposable {
  const sql = postgres(server.uri, { max: 1 })
  const timer = setInterval(() => void sql.notify('postgres-websockets-listener', '{"channel":"elsewhere"}'), 100)
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await sql.end()
    },
  }
}

/** Milliseconds in which a broken side is found and healed: an interval, and as much for the machine. */
const LIMIT = 4000

async function within(event: Promise<unknown>): Promise<void> {
  const late = Bun.sleep(LIMIT).then(() => Promise.reject(new Error(`not within ${LIMIT} ms`)))
  await Promise.race([event, late])
}

async function arrives(client: Client, texts: readonly string[]): Promise<void> {
  const got: string[] = []
  const reading = (async () => {
    while (got.length < texts.length) got.push(await nextNew(client))
  })()
  await Promise.race([reading, Bun.sleep(LIMIT)])
  expect(got).toEqual([...texts])
}

const cuts: [string, Direction | undefined][] = [
  ['in both directions', undefined],
  ['to the database', 'up'],
  ['from the database', 'down'],
]

test.each(cuts)(
  'a sending connection that falls silent %s is found while strangers notify, and its messages arrive',
  async (_, direction) => {
    await using line = await startLine()
    await using _strangers = startStrangers()
    const { client, proxy } = line
    for (const link of proxy.links('sending')) link.swallow(direction)
    for (const text of ['one', 'two', 'three']) client.send(text)
    await arrives(client, ['one', 'two', 'three'])
  },
)

test.each(cuts)(
  'a listening connection that falls silent %s is found while strangers notify, and healed',
  async (_, direction) => {
    await using line = await startLine()
    await using _strangers = startStrangers()
    const { client, program, proxy } = line
    const before = program.stderr().length
    for (const link of proxy.links('listening')) link.swallow(direction)
    await within(program.logged(/listening again/, before))
    client.send('after')
    await arrives(client, ['after'])
  },
)

test('connections that are slow in one direction are not given up', async () => {
  await using line = await startLine()
  const { client, program, proxy } = line
  for (const direction of ['up', 'down'] as const) {
    const before = program.stderr().length
    const slow = [...proxy.links('sending'), ...proxy.links('listening')]
    for (const link of slow) link.delay(100, direction)
    await Bun.sleep(1500)
    for (const text of ['one', 'two', 'three']) client.send(`${text} ${direction}`)
    await arrives(client, [`one ${direction}`, `two ${direction}`, `three ${direction}`])
    expect(program.stderr().slice(before)).not.toContain('lost')
    for (const link of slow) link.reset()
    await program.logged(/listening again/, before)
  }
})

test("messages wait in order while PostgreSQL's process that takes them is stopped for two intervals", async () => {
  await using line = await startLine()
  const { client } = line
  const goOn = await stopBackends(server, 'sending')
  for (const text of ['one', 'two', 'three']) client.send(text)
  await Bun.sleep(2000)
  goOn()
  await arrives(client, ['one', 'two', 'three'])
})

test("PostgreSQL's process that LISTENs is replaced when it is stopped, while strangers notify", async () => {
  await using line = await startLine()
  await using _strangers = startStrangers()
  const { client, program } = line
  const before = program.stderr().length
  const goOn = await stopBackends(server, 'listening')
  await within(program.logged(/listening again/, before))
  client.send('after')
  await arrives(client, ['after'])
  goOn()
})
