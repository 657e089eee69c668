import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { type Client, connect, payloadOf } from '../support/client.ts'
import { endBackends } from '../support/faults.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { startProxy, uriThrough } from '../support/proxy.ts'
import { token } from '../support/token.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.stop())

const env = (events?: string) => ({
  PGWS_DB_URI: server.uri,
  PGWS_META_CHANNEL: 'server-info',
  PGWS_META_EVENTS: events,
  PGWS_CHECK_LISTENER_INTERVAL: '1000',
})

const open = async (program: Program, channels: string[], protocols?: string[]): Promise<Client> =>
  connect(`${program.origin}/${await token({ mode: 'rw', channels })}`, protocols ? { protocols } : {})

const events = async (client: Client, count: number) => (await client.take(count)).map((text) => JSON.parse(text))

async function killListener(program: Program): Promise<void> {
  const before = program.stderr().length
  expect(await endBackends(server, 'listening')).toBeGreaterThan(0)
  await program.logged(/info: listening again/, before)
}

describe('the meta channel', () => {
  test('tells of opened and closed connections and of a restored listener, where all are asked for', async () => {
    await using program = await start(env('all'))
    await using watcher = await open(program, ['server-info'])
    await watcher.next()
    const client = await open(program, ['a', 'b'])
    await client.close(4321, 'my reason')
    const [opened, closed] = await events(watcher, 2)
    expect(opened).toMatchObject({ event: 'ConnectionOpen', payload: 'a,b', client: expect.stringMatching(/^[\da-z]{8}$/) })
    expect(closed).toEqual({
      claims: { mode: 'rw', channels: ['a', 'b'], message_delivered_at: expect.any(Number) },
      event: 'ConnectionClose',
      payload: 'a,b',
      channel: 'server-info',
      client: opened.client,
      code: 4321,
      reason: 'my reason',
      seconds: expect.any(Number),
    })
    const from = Date.now() / 1000
    await killListener(program)
    const [restored] = await events(watcher, 1)
    expect(restored).toEqual({
      claims: { message_delivered_at: expect.any(Number) },
      event: 'ListenerRestored',
      payload: '',
      channel: 'server-info',
      from: expect.any(Number),
      to: expect.any(Number),
    })
    expect(restored.from).toBeLessThanOrEqual(from + 1)
    expect(restored.to).toBeGreaterThanOrEqual(restored.from)
  })
  test('tells why the server closed a connection', async () => {
    await using program = await start(env('ConnectionClose'))
    await using watcher = await open(program, ['server-info'])
    const client = await open(program, ['a'])
    client.send('x'.repeat(9000))
    expect((await client.closed).code).toBe(1009)
    expect((await events(watcher, 1))[0]).toMatchObject({
      event: 'ConnectionClose',
      code: 1009,
      reason: expect.stringContaining('8000 bytes'),
    })
  })
  test('tells of opened connections alone where nothing is asked for, and of what is named otherwise', async () => {
    await using standard = await start(env())
    await using watcher = await open(standard, ['server-info'])
    for (let round = 0; round < 2; round++) await (await open(standard, ['a'])).close()
    expect((await events(watcher, 3)).map(({ event }) => event)).toEqual(['ConnectionOpen', 'ConnectionOpen', 'ConnectionOpen'])
    await using named = await start(env('ListenerRestored, ConnectionOpen'))
    await using other = await open(named, ['server-info'])
    await other.next()
    await (await open(named, ['a'])).close()
    await killListener(named)
    expect((await events(other, 2)).map(({ event }) => event)).toEqual(['ConnectionOpen', 'ListenerRestored'])
  })
})

test('a client that offers pgws is told what it may have missed, per channel that it reads, and no other client is', async () => {
  await using program = await start({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: '1000' })
  await using told = await open(program, ['one', 'two'], ['pgws'])
  await using plain = await open(program, ['one', 'two'])
  await using writer = await connect(`${program.origin}/${await token({ mode: 'w', channels: ['one'] })}`, {
    protocols: ['pgws'],
  })
  const from = Date.now() / 1000
  await killListener(program)
  plain.send('after')
  const messages = await events(told, 2)
  expect(messages).toEqual(
    ['one', 'two'].map((channel) => ({ event: 'MessagesMissed', channel, from: expect.any(Number), to: expect.any(Number) })),
  )
  expect(messages[0].from).toBeLessThanOrEqual(from + 0.5)
  expect(messages[0].to).toBeGreaterThanOrEqual(from)
  expect(payloadOf(await plain.next())).toBe('after')
  expect(writer.waiting).toBe(0)
})

test('PGWS_CLOSE_AFTER_OUTAGE closes readers that cannot be told, and leaves open who is told and who only writes', async () => {
  await using program = await start({
    PGWS_DB_URI: server.uri,
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
    PGWS_CLOSE_AFTER_OUTAGE: 'True',
  })
  await using told = await open(program, ['one'], ['pgws'])
  await using plain = await open(program, ['one'])
  await using foreign = await open(program, ['one'], ['chat'])
  await using writer = await connect(`${program.origin}/${await token({ mode: 'w', channels: ['one'] })}`)
  await using telling = await connect(`${program.origin}/${await token({ mode: 'w', channels: ['one'] })}`, {
    protocols: ['pgws'],
  })
  await killListener(program)
  expect(JSON.parse(await told.next())).toMatchObject({ event: 'MessagesMissed', channel: 'one' })
  writer.send('after')
  expect(payloadOf(await Promise.race([told.next(), writer.closed.then(() => '{}')]))).toBe('after')
  for (const client of [plain, foreign]) {
    await expect(client.next()).rejects.toThrow('closed')
    expect(await client.closed).toEqual({ code: 1012, reason: 'Messages may have been missed: connect again' })
  }
  expect(telling.waiting).toBe(0)
})

test('what a client may have missed begins before its server knew that it heard nothing', async () => {
  using proxy = await startProxy(server.port)
  await using program = await start({
    PGWS_DB_URI: uriThrough(server, proxy),
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
  })
  await using told = await open(program, ['one'], ['pgws'])
  const silent = Date.now() / 1000
  proxy.swallow()
  await program.logged(/listener lost/)
  const lost = Date.now() / 1000
  proxy.pass()
  const [missed] = await events(told, 1)
  expect(missed).toMatchObject({ event: 'MessagesMissed', channel: 'one' })
  // What was on its way may arrive yet.
  expect(missed.from).toBeLessThan(silent + 0.1)
  expect(missed.to).toBeGreaterThanOrEqual(lost)
})
