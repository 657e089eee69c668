/** How messages of the journal reach WebSockets, from the program as it is run. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { connect, handshake, payloadOf } from '../support/client.ts'
import { endBackends } from '../support/faults.ts'
import { journalVariables, withJournalServer } from '../support/journal-server.ts'
import { type Program, start } from '../support/program.ts'
import { unique } from '../support/setup.ts'
import { token } from '../support/token.ts'

const server = withJournalServer()
const { publish, sequenced } = server
let other: Program

beforeAll(async () => {
  other = await start(journalVariables(server.journal))
})
afterAll(() => other.stop())

const position = async (): Promise<string> => String((await server.journal.sql`select pgws.position() as position`)[0]?.position)

const open = async (channel: string, query = '', at = server.program, protocols: string[] = []) =>
  connect(`${at.origin}/${channel}/${await token({ mode: 'rw' })}${query}`, { protocols })

test('what is published in a transaction that commits reaches readers on every server in one order, and what rolls back nobody', async () => {
  const channel = unique('published')
  await using one = await open(channel)
  await using two = await open(channel, '', other)
  await server.journal.sql.begin(async (sql) => {
    for (const text of ['1', '2']) await sql`select pgws.publish(${channel}, ${text})`
  })
  await server.journal.sql
    .begin(async (sql) => {
      await sql`select pgws.publish(${channel}, 'never')`
      throw new Error('roll back')
    })
    .catch(() => undefined)
  await publish(channel, '{"a":\u2603}')
  for (const client of [one, two]) expect(await client.take(3)).toEqual(['1', '2', '{"a":\u2603}'])
})

describe('a reader that begins', () => {
  test('behind a position gets what was published since, on another server too, and then what is live', async () => {
    const channel = unique('since')
    await publish(channel, 'before')
    await sequenced()
    const since = await position()
    await publish(channel, '1', '2')
    await sequenced()
    await using one = await open(channel, `?since=${since}`)
    await using two = await open(channel, `?since=${since}`, other)
    await publish(channel, '3')
    for (const client of [one, two]) expect(await client.take(3)).toEqual(['1', '2', '3'])
  })
  test('with the last messages gets them oldest first', async () => {
    const channel = unique('last')
    await publish(channel, '1', '2', '3')
    await sequenced()
    await using client = await open(channel, '?last=2')
    expect(await client.take(2)).toEqual(['2', '3'])
    await publish(channel, '4')
    expect(await client.next()).toBe('4')
  })
  test('with an empty question of history reads live', async () => {
    const channel = unique('empty')
    // Once it has come to one reader, it comes to no later one.
    await using earlier = await open(channel)
    await publish(channel, 'before')
    expect(await earlier.next()).toBe('before')
    await using client = await open(channel, '?since=&last=')
    await publish(channel, 'live')
    expect(await client.next()).toBe('live')
  })
  test.each([
    ['?since=nonsense', 400, 'Not a position'],
    ['?since=1-1&last=1', 400, 'since and last'],
    ['?last=0', 400, 'since and last'],
    ['?last=1001', 400, 'since and last'],
    ['?last=x', 400, 'since and last'],
    ['?since=abc.1-5', 410, 'not kept any more'],
  ])('with %s is answered %i', async (query, status, reason) => {
    const answer = await handshake(server.program.port, `/chat/${await token({ mode: 'r' })}${query}`)
    expect([answer?.status, answer?.body]).toEqual([status, expect.stringContaining(reason)])
  })
  test('behind a position that is lost is told so where it can be, and then reads live', async () => {
    const channel = unique('lost')
    await using client = await open(channel, '?since=abc.1-5', server.program, ['pgws'])
    expect(JSON.parse(await client.next())).toEqual({ event: 'MessagesMissed', channel, from: null, to: expect.any(Number) })
    await publish(channel, 'live')
    expect(await client.next()).toBe('live')
  })
})

describe('what a client sends on a channel of the journal', () => {
  test('has history, in the envelope of old, and may be larger than a notification', async () => {
    const channel = `kept-${unique('sent')}`
    const large = 'x'.repeat(100_000)
    {
      await using client = await open(channel)
      client.send('small')
      client.send(large)
      expect((await client.take(2)).map(payloadOf)).toEqual(['small', large])
    }
    await using later = await open(channel, '?last=2', other)
    const [first = '', second = ''] = await later.take(2)
    expect(JSON.parse(first)).toMatchObject({ event: 'WebsocketMessage', channel, payload: 'small', claims: { mode: 'rw' } })
    expect(payloadOf(second)).toBe(large)
  })
  test('above PGWS_MAX_MESSAGE_BYTES closes it with 1009', async () => {
    await using client = await open(`kept-${unique('large')}`)
    client.send('x'.repeat(1_048_576))
    expect((await client.closed).code).toBe(1009)
  })
})

test('a session of LISTEN that is lost misses nothing of the journal, and tells of other channels alone', async () => {
  const [kept, plain] = [`kept-${unique('away')}`, unique('away')]
  await using keptClient = await open(kept, '', server.program, ['pgws'])
  await using plainClient = await open(plain, '', server.program, ['pgws'])
  await endBackends(server.journal.server, 'listening')
  await publish(kept, '1', '2')
  expect(await keptClient.take(2)).toEqual(['1', '2'])
  expect(JSON.parse(await plainClient.next())).toMatchObject({ event: 'MessagesMissed', channel: plain })
})

test('without the schema a server with PGWS_JOURNAL does not start, and names --install', async () => {
  const { startPostgres } = await import('../support/postgres.ts')
  const { launch } = await import('../support/program.ts')
  const server = await startPostgres()
  const bare = launch({ PGWS_DB_URI: server.uri, PGWS_JOURNAL: 'True' })
  expect(await bare.exited).toBe(1)
  expect(bare.stderr()).toContain('--install')
  await server.stop()
})
