/** Connections in the database while servers and the database itself go away. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { schema } from '../../lib/database/schema/install.ts'
import { adminOf } from '../support/admin.ts'
import { type Client, connect } from '../support/client.ts'
import { openCrowd } from '../support/crowd.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start as startProgram } from '../support/program.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

let database: Postgres
let servers: readonly Program[]

/** A session of its own, for the database is restarted. */
async function ask(statement: string): Promise<postgres.Row[]> {
  const sql = postgres(database.uri, { max: 1, onnotice: () => undefined, fetch_types: false })
  try {
    return await sql.unsafe(statement)
  } finally {
    await sql.end()
  }
}

async function start(): Promise<Program> {
  const program = await startProgram({
    PGWS_DB_URI: database.uri,
    PGWS_CONNECTIONS: 'True',
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
    PGWS_ADMIN_PORT: '0',
  })
  await program.logged(/info: writing connections/)
  return program
}

const shown = async (): Promise<number> => Number((await ask('select count(*) from pgws.connections'))[0]?.count)
const reader = async (at: number, sub: string): Promise<Client> =>
  connect(`${servers[at]?.origin}/chat/${await token({ sub, mode: 'r' })}`)

beforeAll(async () => {
  database = await startPostgres({ settings: { max_connections: '50' } })
  await ask(schema)
  servers = await Promise.all([start(), start()])
})
afterAll(async () => {
  for (const server of servers) await server.stop()
  await database.stop()
})

test.each(['smart', 'fast', 'immediate'] as const)(
  'after a %s restart everybody is shown again, and an order before it is carried out',
  async (mode) => {
    const clients = await Promise.all([reader(0, 'stays'), reader(1, 'stays')])
    const doomed = await reader(1, 'doomed')
    await until(async () => (await shown()) === 3)
    servers[1]?.signal('SIGSTOP')
    await ask(`select pgws.disconnect('{"sub":"doomed"}', 'bye')`)
    const last = postgres(database.uri, { max: 1 })
    await last`select 1`
    const stopped = database.stop(mode)
    // A smart stop waits for the sessions of servers.
    if (mode === 'smart') await last`select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()`
    await last.end({ timeout: 1 })
    await stopped
    await database.start()
    servers[1]?.signal('SIGCONT')
    expect(await doomed.closed).toEqual({ code: 3002, reason: 'bye' })
    await until(async () => (await shown()) === 2)
    for (const client of clients) await client.close()
    await until(async () => (await shown()) === 0)
  },
)

test('a server that hangs is not shown, the others may remove it, and when it goes on it writes everything anew', async () => {
  const clients = await Promise.all([reader(0, 'here'), reader(1, 'hangs')])
  await until(async () => (await shown()) === 2)
  servers[1]?.signal('SIGSTOP')
  // As 16 s later.
  await ask(`update pgws.servers set seen_at = seen_at - interval '16 s'
    where name = (select server from pgws.sessions where claims @> '{"sub":"hangs"}')`)
  expect(await shown()).toBe(1)
  await ask("select pgws.connections_look('another', '', true)")
  expect((await ask('select count(*)::int from pgws.sessions'))[0]?.count).toBe(1)
  servers[1]?.signal('SIGCONT')
  await until(async () => (await shown()) === 2)
  for (const client of clients) await client.close()
})

test('5,000 that come at once are a few statements, and so are their ends', async () => {
  const [server] = servers
  if (!server) throw new Error('no server')
  await until(async () => (await shown()) === 0)
  const statements = async (): Promise<number> => {
    const text = await (await fetch(`${await adminOf(server)}/metrics`)).text()
    return Number(/^pgws_connection_statements_total (\d+)/m.exec(text)?.[1])
  }
  const before = await statements()
  const jwt = await token({ sub: 'crowd', mode: 'r' })
  const crowd = await openCrowd(server.port, new Array(5000).fill(`/chat/${jwt}`))
  await until(async () => (await shown()) === 5000)
  await ask("select pgws.disconnect('{}')")
  await until(async () => (await shown()) === 0)
  await crowd.close()
  expect((await statements()) - before).toBeLessThan(40)
})
