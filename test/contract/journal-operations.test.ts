/** What whoever runs a server with the journal sees of it: checks, faults at the start, readiness and metrics. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { adminOf, readiness } from '../support/admin.ts'
import { type JournalDatabase, startJournal } from '../support/journal.ts'
import { startPostgres } from '../support/postgres.ts'
import { type Environment, launch, start } from '../support/program.ts'
import { until } from '../support/until.ts'

let journal: JournalDatabase
beforeAll(async () => {
  journal = await startJournal()
  await journal.sql.unsafe(`create role app login password '${journal.server.password}'`)
})
afterAll(() => journal.stop())

const env = (more: Environment = {}): Environment => ({
  PGWS_DB_URI: journal.uri,
  PGWS_JOURNAL: 'True',
  PGWS_CHECK_LISTENER_INTERVAL: '1000',
  PGWS_ADMIN_PORT: '0',
  ...more,
})

/** What --check says of the journal, and its exit code. */
async function check(more: Environment): Promise<readonly [string | undefined, unknown]> {
  const program = launch(env(more), ['--check'])
  const code = await program.exited
  const line = program
    .stdout()
    .split('\n')
    .find((candidate) => candidate.slice(2).startsWith('journal: '))
  return [line, code]
}

const asApp = (): string => journal.uri.replace('//postgres:', '//app:')

describe('--check and a start', () => {
  test('say how much of the journal there is', async () => {
    await journal.sql`select pgws.publish('chat', 'hello')`
    await journal.look()
    const [line, code] = await check({})
    expect(line).toMatch(/^✓ journal: 1 messages, \d+ KiB, the oldest of \d{4}-\S+ \S+; kept for 1 day$/)
    expect(code).toBe(0)
    await using program = await start(env())
    expect(program.stderr()).toMatch(/info: reading the journal position=[0-9a-f]+\.1-1/)
    await program.logged(/info: this server sequences the journal/)
  })

  test('name --install where the schema is missing or older', async () => {
    const bare = await startPostgres()
    const env = { PGWS_DB_URI: bare.uri }
    expect(await check(env)).toEqual([expect.stringMatching(/^✗ journal: .*no schema pgws.*--install/), 1])
    await journal.sql`update pgws.settings set version = 0`
    expect(await check({})).toEqual([
      expect.stringMatching(/^✗ journal: .*has version 0, and this program needs 1.*--install/),
      1,
    ])
    await journal.sql`update pgws.settings set version = 1`
    await bare.stop()
  })

  test('name what the role may not do', async () => {
    expect(await check({ PGWS_DB_URI: asApp() })).toEqual([expect.stringMatching(/^✗ journal: .*usage on schema pgws/), 1])
    await journal.sql`grant usage on schema pgws to app`
    await journal.sql`grant execute on all functions in schema pgws to app`
    expect((await check({ PGWS_DB_URI: asApp() }))[1]).toBe(0)
    await journal.sql`revoke execute on function pgws.rotate() from app`
    const fault = 'the role app may not execute pgws.rotate(): grant execute on all functions in schema pgws to app'
    expect(await check({ PGWS_DB_URI: asApp() })).toEqual([`✗ journal: ${fault}`, 1])
    const program = launch(env({ PGWS_DB_URI: asApp() }))
    expect(await program.exited).toBe(1)
    expect(program.stderr()).toContain(`error: cannot use the journal reason="${fault}"`)
  })

  test.each([
    ['nonsense', 'no interval that PostgreSQL reads'],
    ['9.9 seconds', 'less than 10 seconds'],
    ['-1 day', 'less than 10 seconds'],
  ])('refuse to keep messages for %s', async (retention, fault) => {
    const more = { PGWS_JOURNAL_RETENTION: retention }
    expect(await check(more)).toEqual([expect.stringContaining(`PGWS_JOURNAL_RETENTION is "${retention}", ${fault}`), 1])
    const program = launch(env(more))
    expect(await program.exited).toBe(1)
    expect(program.stderr()).toContain(fault)
  })

  test('take the shortest retention', async () => {
    expect((await check({ PGWS_JOURNAL_RETENTION: '10 seconds' }))[1]).toBe(0)
  })
})

test('/ready says 503 while the journal cannot be read, although LISTEN stands', async () => {
  await using program = await start(env())
  const admin = await adminOf(program)
  expect(await readiness(admin)).toBe(200)
  await journal.sql`alter function pgws.stand() rename to stand_away`
  await program.logged(/warning: the journal cannot be read /)
  expect(await readiness(admin)).toBe(503)
  expect(program.stderr()).not.toContain('listener lost')
  await journal.sql`alter function pgws.stand_away() rename to stand`
  await until(async () => (await readiness(admin)) === 200)
  expect(program.stderr()).not.toContain('listener lost')
})
