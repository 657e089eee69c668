/** PGWS_CONNECTIONS: who is connected stands in the database, which ends connections and revokes tokens. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { connect, handshake } from '../support/client.ts'
import { type JournalDatabase, startJournal } from '../support/journal.ts'
import { launch, type Program, start as startProgram } from '../support/program.ts'
import { token, tokenOfText } from '../support/token.ts'
import { until } from '../support/until.ts'

let journal: JournalDatabase
let servers: readonly Program[]
const variables = () => ({
  PGWS_DB_URI: journal.uri,
  PGWS_CONNECTIONS: 'True',
  PGWS_JOURNAL: 'True',
  PGWS_CHECK_LISTENER_INTERVAL: '1000',
})

/** It lets clients in once it knows what is revoked. */
async function start(env: Parameters<typeof startProgram>[0]): Promise<Program> {
  const program = await startProgram(env)
  await program.logged(/info: writing connections/)
  return program
}

beforeAll(async () => {
  journal = await startJournal()
  servers = await Promise.all([start(variables()), start(variables())])
})
afterAll(async () => {
  for (const server of servers) await server.stop()
  await journal.stop()
})

const origin = (at = 0): string => servers[at]?.origin ?? ''
const shown = async (sub: string) => [
  ...(await journal.sql`select claims, channels::text, mode, door, host(address) as address, server from pgws.connections
    where claims @> ${JSON.stringify({ sub })}::text::jsonb`),
]

test('the view shows who is connected, to whatever server, until it is gone', async () => {
  const jwt = await token({ sub: 'anna', mode: 'rw', large: 1 })
  const clients = await Promise.all([
    connect(`${origin(0)}/chat/${jwt}`),
    connect(`${origin(1)}/chat/${jwt}`, { protocols: ['pgws.json'] }),
  ])
  await until(async () => (await shown('anna')).length === 2)
  const rows = await shown('anna')
  expect(rows.map(({ door }) => door).sort()).toEqual(['pgws.json', 'websocket'])
  expect(rows[0]).toMatchObject({ claims: { sub: 'anna', mode: 'rw' }, channels: '{chat}', mode: 'rw', address: '127.0.0.1' })
  expect(new Set(rows.map(({ server }) => server)).size).toBe(2)
  clients[1].send('{"command":"subscribe","channel":"other"}')
  await until(async () => (await shown('anna')).some(({ channels }) => channels === '{chat,other}'))
  for (const client of clients) await client.close()
  await until(async () => (await shown('anna')).length === 0)
})

test('claims that jsonb cannot hold keep nobody else from being shown, and are ended by the others', async () => {
  const odd = await connect(`${origin()}/chat/${tokenOfText('{"sub":"odd","mode":"r","name":"\\u0000","size":1e999999}')}`)
  const even = await connect(`${origin()}/chat/${await token({ sub: 'even', mode: 'r' })}`)
  await until(async () => (await shown('even')).length === 1 && (await shown('odd')).length === 1)
  await journal.sql`select pgws.disconnect('{"sub":"odd"}')`
  expect(await odd.closed).toEqual({ code: 3002, reason: 'disconnected' })
  await even.close()
})

test('disconnect ends whose claims contain these, on every server, within a second, with the reason cut to fit', async () => {
  const jwt = await token({ sub: 'bob', mode: 'r', roles: ['a', 'b'] })
  const clients = await Promise.all([connect(`${origin(0)}/chat/${jwt}`), connect(`${origin(1)}/chat/${jwt}`)])
  const other = await connect(`${origin(0)}/chat/${await token({ sub: 'bob', mode: 'r', roles: ['b'] })}`)
  const began = performance.now()
  await journal.sql`select pgws.disconnect('{"sub":"bob","roles":["a"]}', ${'é'.repeat(100)})`
  for (const client of clients) expect(await client.closed).toEqual({ code: 3002, reason: 'é'.repeat(61) })
  expect(performance.now() - began).toBeLessThan(1000)
  await journal.sql`select pgws.disconnect('{"sub":"bob"}', 'all')`
  expect(await other.closed).toEqual({ code: 3002, reason: 'all' })
  await using again = await connect(`${origin(0)}/chat/${jwt}`)
  expect(again.waiting).toBe(0)
})

test('an event stream that is disconnected says so and ends', async () => {
  const answer = await fetch(`${origin().replace('ws', 'http')}/chat/${await token({ sub: 'stream', mode: 'r' })}`, {
    headers: { Accept: 'text/event-stream' },
  })
  await journal.sql`select pgws.disconnect('{"sub":"stream"}', 'bye')`
  expect(await answer.text()).toEndWith('event: Disconnected\ndata: {"reason":"bye"}\n\n')
})

test('an order of a long transaction counts, though a later one was seen before', async () => {
  await using client = await connect(`${origin()}/chat/${await token({ sub: 'long', mode: 'r' })}`)
  const slow = journal.session()
  await slow.begin(async (sql) => {
    await sql`select pgws.disconnect('{"sub":"long"}', 'late')`
    const quick = await connect(`${origin()}/chat/${await token({ sub: 'quick', mode: 'r' })}`)
    await journal.sql`select pgws.disconnect('{"sub":"quick"}')`
    expect((await quick.closed).code).toBe(3002)
  })
  expect(await client.closed).toEqual({ code: 3002, reason: 'late' })
})

test('a revoked token is let in nowhere, not after a restart either, and the command token refuses it', async () => {
  const revoked = await token({ sub: 'carl', mode: 'rw', number: 7 })
  const client = await connect(`${origin(0)}/chat/${revoked}`)
  await using other = await connect(`${origin(1)}/chat/${await token({ sub: 'dora', mode: 'r' })}`, { protocols: ['pgws.json'] })
  await other.next()
  await journal.sql`select pgws.revoke('{"sub":"carl","number":7.0}', now() + interval '1 hour')`
  expect(await client.closed).toEqual({ code: 3002, reason: 'Token revoked' })
  const tryAt = async ({ port }: Program) => {
    const { status, body } = await handshake(port, `/chat/${revoked}`)
    return { status, body }
  }
  for (const server of servers) {
    await until(async () => (await tryAt(server)).status === 401)
    expect(await tryAt(server)).toEqual({ status: 401, body: 'Token revoked' })
    const posted = await fetch(`http://127.0.0.1:${server.port}/chat/${revoked}`, { method: 'POST', body: 'x' })
    expect(posted.status).toBe(401)
  }
  other.send(JSON.stringify({ id: 1, command: 'token', token: revoked }))
  expect(JSON.parse(await other.next())).toMatchObject({ id: 1, event: 'Refused', code: 'TOKEN_REVOKED' })
  await using later = await start(variables())
  expect(await tryAt(later)).toEqual({ status: 401, body: 'Token revoked' })
})

test('a revocation ends with its time', async () => {
  const jwt = await token({ sub: 'brief', mode: 'r' })
  await journal.sql`select pgws.revoke('{"sub":"brief"}', now() + interval '1 second')`
  await until(async () => (await handshake(servers[0]?.port ?? 0, `/chat/${jwt}`)).status === 401)
  await until(async () => (await handshake(servers[0]?.port ?? 0, `/chat/${jwt}`)).status === 101)
})

test('the channel of presence tells who joins and who leaves', async () => {
  const [row] = await journal.sql`select pgws.presence('room') as name`
  await using reader = await connect(`${origin(1)}/${encodeURIComponent(row?.name)}/${await token({ mode: 'r' })}`)
  const client = await connect(`${origin(0)}/room/${await token({ sub: 'eve', mode: 'r' })}`)
  const joined = JSON.parse(await reader.next())
  expect(joined).toMatchObject({ event: 'Joined', client: expect.any(String), claims: { sub: 'eve', mode: 'r' } })
  await client.close()
  expect(JSON.parse(await reader.next())).toEqual({ ...joined, event: 'Left' })
})

test('nobody may see or end connections who was not granted it', async () => {
  await journal.sql.unsafe(
    `create role stranger login password '${journal.server.password}'; grant usage on schema pgws to stranger`,
  )
  const stranger = journal.session('stranger')
  for (const statement of [
    "pgws.disconnect('{}')",
    "pgws.revoke('{}', now())",
    'pgws.authorize_again()',
    '* from pgws.connections',
  ])
    await expect(stranger.unsafe(`select ${statement}`)).rejects.toThrow('permission denied')
})

test('a role without rights, and a database without the schema, are faults at the start', async () => {
  const program = launch({
    ...variables(),
    PGWS_JOURNAL: 'False',
    PGWS_DB_URI: journal.uri.replace('//postgres:', '//stranger:'),
  })
  expect(await program.exited).toBe(1)
  const grants = /(grant usage .*?); (grant execute .*? to stranger)/.exec(program.stderr())
  await journal.sql.unsafe(`${grants?.[1]}; ${grants?.[2]}`)
  const granted = await start({
    ...variables(),
    PGWS_JOURNAL: 'False',
    PGWS_DB_URI: journal.uri.replace('//postgres:', '//stranger:'),
  })
  expect(await granted.stop()).toBe(0)
  await journal.sql`create database bare`
  const bare = launch({ ...variables(), PGWS_JOURNAL: 'False', PGWS_DB_URI: journal.uri.replace(/postgres$/, 'bare') })
  expect(await bare.exited).toBe(1)
  expect(bare.stderr()).toMatch(/cannot keep connections.*--install/)
})

test('a server whose row is gone writes everything anew, and one that is killed vanishes', async () => {
  const doomed = await start(variables())
  const jwt = await token({ sub: 'fred', mode: 'r' })
  await connect(`${doomed.origin}/chat/${jwt}`)
  await using client = await connect(`${origin()}/chat/${jwt}`)
  await until(async () => (await shown('fred')).length === 2)
  doomed.signal('SIGKILL')
  // As a crash of the database leaves it.
  await journal.sql`truncate pgws.servers, pgws.sessions`
  await until(async () => (await shown('fred')).length === 1)
  expect(client.waiting).toBe(0)
})
