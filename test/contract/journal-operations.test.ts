/** What whoever runs a server with the journal sees of it: checks, faults at the start, readiness and metrics. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { schemaVersion } from '../../lib/database/schema/install.ts'
import { adminOf, metric, readiness } from '../support/admin.ts'
import { connect } from '../support/client.ts'
import { type JournalDatabase, startJournal } from '../support/journal.ts'
import { startPostgres } from '../support/postgres.ts'
import { type Environment, launch, type Program, start } from '../support/program.ts'
import { unique } from '../support/setup.ts'
import { token } from '../support/token.ts'
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
    expect(line).toMatch(/^✓ journal: 1 messages, \d+ KiB, the oldest \d s old; kept for 1 day$/)
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
      expect.stringMatching(new RegExp(`^✗ journal: .*has version 0, and this program needs ${schemaVersion}.*--install`)),
      1,
    ])
    await journal.sql`update pgws.settings set version = ${schemaVersion}`
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

describe('/metrics', () => {
  const open = async (program: Program, channel: string, query: string) =>
    connect(`${program.origin}/${channel}/${await token({ mode: 'r' })}${query}`, { protocols: ['pgws'] })

  test('tell where the journal stands, what it holds, and where readers found what they came for', async () => {
    const channel = unique('metered')
    const before = Number((await journal.sql`select head::float8 as head from pgws.stand()`)[0]?.head)
    await using program = await start(env({ PGWS_JOURNAL_CACHE_BYTES: '200' }))
    const admin = await adminOf(program)
    const value = (name: string): Promise<number> => metric(admin, `pgws_journal_${name}`)
    const texts = ['1', '2', '3', '4', '5', '6', '7', '8', '9']
    await using reader = await open(program, channel, '')
    for (const text of texts) await journal.sql`select pgws.publish(${channel}, ${text})`
    expect(await reader.take(9)).toEqual(texts)
    expect(await value('position')).toBe(before + 9)
    expect(await value('reading')).toBe(1)
    // A look is counted once it is answered, which may be behind the bell that it rang.
    await until(async () => (await value('batches_total')) > 0)
    expect(await value('looks_total')).toBeGreaterThanOrEqual(await value('batches_total'))
    expect(await value('cached_bytes')).toBeLessThanOrEqual(200)
    const states = ['awake', 'half asleep', 'asleep']
    const text = await (await fetch(`${admin}/metrics`)).text()
    expect(states.filter((state) => text.includes(`pgws_journal_sequencer{state="${state}"} 1\n`))).toHaveLength(1)
    await using one = await open(program, channel, '?last=1')
    await using all = await open(program, channel, '?last=9')
    await using late = await open(program, channel, '?since=abc.1-5')
    expect(await one.next()).toBe('9')
    expect(await all.take(9)).toEqual(texts)
    expect(await late.next()).toContain('MessagesMissed')
    // Of history as of what is live: nine live, one, and nine again.
    expect(await metric(admin, 'pgws_messages_delivered_total')).toBe(19)
    expect(await value('resumes_total{from="memory"}')).toBe(1)
    expect(await value('resumes_total{from="tables"}')).toBe(1)
    expect(await value('pages_total{from="tables"}')).toBeGreaterThan(0)
    expect(await value('lost_total')).toBe(1)
  })

  test('tell from the first on how much is kept', async () => {
    await using program = await start(env())
    const admin = await adminOf(program)
    await until(async () => (await metric(admin, 'pgws_journal_messages')) > 0)
    expect(await metric(admin, 'pgws_journal_messages')).toBe(await metric(admin, 'pgws_journal_position'))
    expect(await metric(admin, 'pgws_journal_bytes')).toBeGreaterThan(100_000)
    expect(await metric(admin, 'pgws_journal_oldest_kept')).toBe(1)
    expect(await metric(admin, 'pgws_journal_oldest_kept_age_seconds')).toBeGreaterThan(0)
    expect(await metric(admin, 'pgws_journal_lag_seconds')).toBe(0)
  })

  test('tell of what is committed and not read: given no position yet, or beyond where a server stands', async () => {
    const lag = async (after: number): Promise<number> => (await journal.sql`select lag from pgws.holdings(${after})`)[0]?.lag
    const { head } = await journal.look()
    expect(await lag(head)).toBe(0)
    const under = journal.session()
    await under`begin`
    await under`select pgws.publish('chat', 'long')`
    await journal.sql`select pgws.publish('chat', 'short')`
    expect(await lag(head)).toBeGreaterThan(0)
    await journal.look()
    expect(await lag(head)).toBeGreaterThan(0)
    expect(await lag(head + 1)).toBe(0)
    await under`commit`
    expect(await lag(head + 1)).toBeGreaterThan(0)
    await journal.look()
    expect(await lag(head + 2)).toBe(0)
  })
})
