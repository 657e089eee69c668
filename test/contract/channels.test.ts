import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import postgres from 'postgres'
import { type Client, connect, payloadOf } from '../support/client.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

let server: Postgres
let sql: postgres.Sql
let program: Program
beforeAll(async () => {
  server = await startPostgres()
  sql = postgres(server.uri, { max: 1 })
  program = await start({
    PGWS_DB_URI: server.uri,
    PGWS_DATABASE_CHANNELS: 'orders, chat_*, *ä*',
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
    PGWS_LISTEN_CHANNEL: 'chat_listener',
  })
})
afterAll(async () => {
  await program.stop()
  await sql.end()
  await server.stop()
})

const open = async (mode: string, ...channels: string[]): Promise<Client> =>
  connect(`${program.origin}/${await token({ mode, channels })}`)

/** Whether a notification reaches a client, which is on the channel "marker" too, before one that is sent after it. */
async function reaches(client: Client, channel: string, text = `to ${channel}`): Promise<boolean> {
  await sql.notify(channel, text)
  await sql.notify('chat_listener', JSON.stringify({ channel: 'marker' }))
  const received: string[] = []
  while (received.at(-1) !== '{"channel":"marker"}') received.push(await client.next())
  return received.includes(text)
}

describe('a database channel', () => {
  test.each([
    ['orders'],
    ['chat_1'],
    ['chat_'],
    ['xäy'],
    [`chat_"; drop table x; --`],
    ['chat_constructor'],
    [`chat_${'x'.repeat(58)}`],
    ['chat_€🦄'],
    ['chat_%41'],
  ])('that matches a pattern (%s) reaches its readers as it is', async (channel) => {
    await using client = await open('r', channel, 'marker')
    expect(await reaches(client, channel, 'plain "text"')).toBe(true)
  })
  test.each([['order'], ['my_orders'], ['Chat_1'], ['chat_listener']])(
    'that matches none, or is the listen channel (%s), reaches nobody directly',
    async (channel) => {
      await using client = await open('r', channel, 'marker')
      // The listen channel's own texts go by their channel, never twice.
      await sql.notify(channel, '{"channel":"elsewhere"}')
      expect(await reaches(client, 'unrelated')).toBe(false)
    },
  )
  test('is never the listen channel, which is listened to though its readers leave', async () => {
    await (await open('r', 'chat_listener')).close()
    await using client = await open('r', 'marker')
    await sql.notify('chat_listener', '{"channel":"marker"}')
    expect(await Promise.race([client.next(), Bun.sleep(2000)])).toBe('{"channel":"marker"}')
  })
  test('of more than 63 bytes is a channel of the server alone', async () => {
    const name = `chat_${'x'.repeat(59)}`
    await using client = await open('rw', name)
    client.send('x')
    expect(payloadOf(await client.next())).toBe('x')
    await sql.notify(name.slice(0, 63), 'cut')
    client.send('y')
    expect(payloadOf(await client.next())).toBe('y')
  })
  test('is not listened to for a client that only writes', async () => {
    await using writer = await open('w', 'chat_w')
    await using reader = await open('r', 'marker')
    expect(await reaches(reader, 'chat_w')).toBe(false)
    expect(writer.waiting).toBe(0)
  })
  test('is followed by LISTEN and UNLISTEN as its readers come and go', async () => {
    for (let round = 0; round < 5; round++) {
      const [one, two] = [await open('r', 'chat_follow', 'marker'), await open('r', 'chat_follow', 'marker')]
      expect(await reaches(one, 'chat_follow')).toBe(true)
      await one.close()
      expect(await reaches(two, 'chat_follow')).toBe(true)
      await two.close()
    }
    // The session of the shared server asks its own list of channels: none of those without readers is left.
    await using other = await start({ PGWS_DB_URI: `${server.uri}?application_name=follow`, PGWS_DATABASE_CHANNELS: '*' })
    const client = await connect(`${other.origin}/${await token({ mode: 'r', channels: ['gone'] })}`)
    await client.close()
    const last = async (): Promise<string> => {
      const [found] = await sql`select query from pg_stat_activity where application_name = 'follow' and query ilike '%listen "%'`
      return String(found?.query)
    }
    await until(async () => (await last()) === 'unlisten "gone"')
  })
  test('what is notified after a client has seen its socket open reaches it', async () => {
    for (let round = 0; round < 20; round++) {
      await using client = await open('r', `chat_round_${round}`, 'marker')
      expect(await reaches(client, `chat_round_${round}`, 'at once')).toBe(true)
    }
  })
  test('is restored with all others after the session is lost', async () => {
    await using client = await open('r', 'marker', ...Array.from({ length: 50 }, (_, index) => `chat_restored_${index}`))
    const before = program.stderr().length
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where (query like '%pg_listening_channels%' or query ilike '%listen "%') and pid <> pg_backend_pid()`
    await program.logged(/info: listening /, before)
    for (const index of [0, 25, 49]) expect(await reaches(client, `chat_restored_${index}`)).toBe(true)
  })
})

test('10,000 different channels are held by one session', async () => {
  const named = (group: number): string[] => Array.from({ length: 10 }, (_, index) => `chat_many_${group}_${index}`)
  const clients = await Promise.all(Array.from({ length: 1000 }, (_, group) => open('r', ...named(group))))
  for (const group of [0, 500, 999]) {
    await sql.notify(`chat_many_${group}_9`, 'here')
    expect(await clients[group]?.next()).toBe('here')
  }
  await Promise.all(clients.map((client) => client.close()))
})
