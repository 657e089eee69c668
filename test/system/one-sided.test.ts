import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { type Client, connect, handshake, nextNew } from '../support/client.ts'
import { stopBackends } from '../support/faults.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { type Direction, type Side, startProxy } from '../support/proxy.ts'
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
    PGWS_DATABASE_CHANNELS: 'db-*',
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

async function arrives(client: Client, texts: readonly string[]): Promise<void> {
  const began = Date.now()
  const got: string[] = []
  const reading = (async () => {
    while (got.length < texts.length) got.push(await nextNew(client))
  })()
  await Promise.race([reading, Bun.sleep(LIMIT)])
  expect(got).toEqual([...texts])
  expect(Date.now() - began).toBeLessThan(LIMIT)
}

const cuts = (['sending', 'listening'] as const).flatMap((side) =>
  ([undefined, 'up', 'down'] as const).map((direction): [Side, string, Direction | undefined] => [
    side,
    direction === undefined ? 'in both directions' : direction === 'up' ? 'to the database' : 'from the database',
    direction,
  ]),
)

test.each(cuts)(
  'a %s connection that falls silent %s is found while strangers notify, and its messages arrive',
  async (side, _, direction) => {
    await using line = await startLine()
    await using _strangers = startStrangers()
    const { client, program, proxy } = line
    for (const link of proxy.links(side)) link.swallow(direction)
    // What the database takes while nobody listens is told as missed, and does not come.
    if (side === 'listening' && direction !== 'up') await program.logged(/listener lost/)
    for (const text of ['one', 'two', 'three']) client.send(text)
    await arrives(client, ['one', 'two', 'three'])
  },
)

test('a LISTEN connection that is silent to the database alone is found, and an upgrade for a new channel is answered', async () => {
  await using line = await startLine()
  const { program, proxy } = line
  const path = `/db-1/${await token({ mode: 'r' })}`
  for (const link of proxy.links('listening')) link.swallow('up')
  // What PostgreSQL sends still arrives, the check's notification too; what is asked of it does not.
  const answer = await Promise.race([handshake(program.port, path), Bun.sleep(LIMIT)])
  expect([101, 503]).toContain(answer?.status ?? 0)
})

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

test.each([
  ['LISTENs', 'listening'],
  ['sends', 'sending'],
] as const)('messages arrive in order though the process of PostgreSQL that %s is stopped for two intervals', async (_, side) => {
  await using line = await startLine()
  const { client, program } = line
  const goOn = await stopBackends(server, side)
  if (side === 'listening') await program.logged(/listener lost/)
  for (const text of ['one', 'two', 'three']) client.send(text)
  await Bun.sleep(2000)
  goOn()
  await arrives(client, ['one', 'two', 'three'])
})
