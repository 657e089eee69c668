import { afterAll, beforeAll, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import postgres from 'postgres'
import { parseConninfo } from '../../lib/database/conninfo.ts'
import { createDatabase } from '../../lib/database/database.ts'
import { connect, payloadOf } from '../support/client.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { token } from '../support/token.ts'

let server: Postgres
let admin: postgres.Sql
beforeAll(async () => {
  server = await startPostgres()
  admin = postgres(server.uri, { max: 1, onnotice: () => undefined })
})
afterAll(async () => {
  await admin.end()
  await server.stop()
})

let roles = 0

/** The connection string of a new role with such settings. */
async function roleWith(settings: Readonly<Record<string, string>>): Promise<string> {
  const name = `role${++roles}`
  await admin.unsafe(`create role ${name} login password '${server.password}'`)
  for (const [setting, value] of Object.entries(settings)) await admin.unsafe(`alter role ${name} set ${setting} = '${value}'`)
  return server.uri.replace('//postgres:', `//${name}:`)
}

async function goesRound(program: Program, text: string): Promise<void> {
  await using client = await connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)
  client.send(text)
  expect(payloadOf(await client.next())).toBe(text)
}

const sessions = async (): Promise<number[]> =>
  (await admin`select pid from pg_stat_activity where application_name = 'postgres-websockets' order by pid`).map(
    ({ pid }) => pid,
  )

test.each([undefined, '1000', '5000'])("a role's time limits end no session of the server (interval %p)", async (interval) => {
  const uri = await roleWith({
    idle_session_timeout: '300ms',
    idle_in_transaction_session_timeout: '100ms',
    lock_timeout: '1ms',
    default_transaction_read_only: 'on',
  })
  await using program = await start({ PGWS_DB_URI: uri, PGWS_CHECK_LISTENER_INTERVAL: interval })
  await goesRound(program, 'before')
  const before = await sessions()
  expect(before).toHaveLength(2)
  await Bun.sleep(1500)
  expect(program.stderr()).not.toContain('listener lost')
  expect(await sessions()).toEqual(before)
  await goesRound(program, 'after')
})

test("no database channel is deaf under a role's statement_timeout of 1 ms: an upgrade gets 503, or it hears", async () => {
  const uri = await roleWith({ statement_timeout: '1ms' })
  await using program = await start({ PGWS_DB_URI: uri, PGWS_DATABASE_CHANNELS: '*', PGWS_CHECK_LISTENER_INTERVAL: '1000' })
  for (let index = 0; index < 5; index++) {
    const channels = Array.from({ length: 1000 }, (_, number) => `${index}-${number}`)
    const client = await connect(`${program.origin}/${await token({ mode: 'r', channels })}`).catch(() => undefined)
    if (client === undefined) continue
    await admin`select pg_notify(channel, channel) from unnest(${[...channels, channels[0] ?? '']}::text[]) as channel`
    await admin.notify(channels[0] ?? '', 'the end')
    const heard: string[] = []
    while (heard.at(-1) !== 'the end') heard.push(await client.next())
    expect(heard).toEqual([...channels, 'the end'])
    await client.close()
  }
})

test("the process of a session is found again by its start, whatever the roles' DateStyle and time zone", async () => {
  const conninfo = parseConninfo(await roleWith({ datestyle: 'SQL, DMY', timezone: 'Asia/Kolkata' }), {}, readFileSync, '')
  const session = await createDatabase(() => conninfo, 0).connect()
  const { pid, startedAt } = session.server.backend
  for (const settings of ['', 'set datestyle = "SQL, MDY"', 'set timezone = "Europe/Dublin"']) {
    if (settings !== '') await session.query(settings)
    const found = await session.query(
      'select pid::text from pg_stat_activity where pid = $1::int and backend_start = $2::text::timestamptz',
      [pid, startedAt],
    )
    expect(found).toEqual([{ pid }])
  }
  session.close()
})

test('a session sees what was committed while it waited, whatever isolation is the default of its role', async () => {
  for (const level of ['repeatable read', 'serializable']) {
    const conninfo = parseConninfo(await roleWith({ default_transaction_isolation: level }), {}, readFileSync, '')
    const session = await createDatabase(() => conninfo, 0).connect()
    expect(await session.query('show transaction_isolation')).toEqual([{ transaction_isolation: 'read committed' }])
    session.close()
  }
})
