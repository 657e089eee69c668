/** How old messages go, without a DELETE and in nobody's way, and what becomes of positions where history may have forked. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import type postgres from 'postgres'
import { type JournalDatabase, startJournal } from '../support/journal.ts'

let journal: JournalDatabase
let sql: postgres.Sql

beforeAll(async () => {
  journal = await startJournal()
  sql = journal.sql
})
afterAll(() => journal.stop())

/** Seconds for which one of the four tables is filled: the server lets nobody set less than 5. */
const SLOT = 0.3

beforeEach(async () => {
  await sql`select pgws.begin_session(${`${SLOT * 2} s`}::text::interval)`
})

const position = async (): Promise<string> => String((await sql`select pgws.position() as position`)[0]?.position)

const codeOf = (statement: Promise<unknown>): Promise<unknown> =>
  statement.then(
    () => 'fine',
    (error: { code?: unknown }) => error.code,
  )

const history = async (channel: string): Promise<unknown[]> =>
  (await sql`select payload from pgws.history(${channel})`).map(({ payload }) => payload)

/** Waits until the table that is filled now is the first of a turn. */
async function untilTurn(): Promise<void> {
  while ((await sql`select pgws.slot(${SLOT}) as slot`)[0]?.slot === 0) await Bun.sleep(5)
  while ((await sql`select pgws.slot(${SLOT}) as slot`)[0]?.slot !== 0) await Bun.sleep(5)
}

async function rotateFor(milliseconds: number): Promise<number> {
  let emptied = 0
  for (const end = performance.now() + milliseconds; performance.now() < end; await Bun.sleep(50))
    emptied += Number((await sql`select pgws.rotate() as emptied`)[0]?.emptied)
  return emptied
}

describe('retention', () => {
  test('drops what is older, keeps what is younger, and tells a position that is lost by it', async () => {
    await untilTurn()
    await sql`select pgws.publish('old', 'x')`
    await journal.look()
    const lost = await position()
    await sql`select pgws.publish('old', 'y')`
    await journal.look()
    await rotateFor(SLOT * 4000)
    await sql`select pgws.publish('old', 'young')`
    await journal.look()
    const good = await position()
    await rotateFor(SLOT * 1000)
    expect(await history('old')).toEqual(['young'])
    expect(await codeOf(sql`select pgws.history('old', ${lost})`)).toBe('PT410')
    expect(await codeOf(sql`select pgws.history('old', ${good})`)).toBe('fine')
    expect(await codeOf(sql`select pgws.read_channels('{old}', 0, 10, 1000)`)).toBe('PT410')
    expect(await codeOf(sql`select pgws.read(0, 10, 1000, 1)`)).toBe('PT410')
    const [deleted] = await sql`select sum(n_tup_del)::int as rows from pg_stat_user_tables where schemaname = 'pgws'`
    expect(deleted?.rows).toBe(0)
  })

  test('waits for nothing and makes nobody wait: a table in use is left for the next time', async () => {
    await untilTurn()
    const [publisher, reader] = [journal.session(), journal.session()]
    await publisher`begin`
    await publisher`select pgws.publish('busy', 'x')`
    await sql`select pgws.publish('busy', 'beside')`
    await journal.look()
    const began = performance.now()
    await rotateFor(SLOT * 5000)
    expect(performance.now() - began).toBeLessThan(SLOT * 5000 + 1000)
    expect(await history('busy')).toEqual(['beside'])
    await publisher`commit`
    // Committed, but not looked at: not dropped, however long ago it was published.
    await sql`select pgws.rotate()`
    await journal.look()
    expect(await history('busy')).toEqual(['beside', 'x'])
    await reader`begin`
    await reader`select * from pgws.messages limit 1`
    await rotateFor(SLOT * 5000)
    await sql`select pgws.publish('busy', 'y')`
    expect(await history('busy')).toEqual(['beside', 'x'])
    await reader`commit`
    await journal.look()
    await rotateFor(SLOT * 6000)
    expect(await history('busy')).toEqual([])
  })

  test('is not needed for publishing: without a server the tables are filled turn by turn', async () => {
    const count = 20
    for (let index = 0; index < count; index++) {
      await sql`select pgws.publish('alone', ${String(index)})`
      await Bun.sleep((SLOT * 6000) / count)
    }
    await journal.look()
    expect(await history('alone')).toEqual(Array.from({ length: count }, (_, index) => String(index)))
    const [tables] = await sql`select count(distinct slot)::int as filled from pgws.messages where channel = 'alone'`
    expect(tables?.filled).toBe(4)
  })

  test('is told to who reads in an older snapshot, in which an emptied table is empty', async () => {
    await untilTurn()
    const since = await position()
    await sql`select pgws.publish('snapshot', 'x')`
    await journal.look()
    const reader = journal.session()
    await reader`begin isolation level repeatable read`
    expect((await reader`select pgws.position_number(${since}) as number`)[0]?.number).not.toBeNull()
    await rotateFor(SLOT * 5000)
    expect(await codeOf(reader`select * from pgws.history('snapshot', ${since})`)).toBe('40001')
    await reader`rollback`
    expect(await codeOf(sql`select * from pgws.history('snapshot', ${since})`)).toBe('PT410')
  })

  test('keeps an idle journal small, and its end', async () => {
    await sql`select pgws.publish('idle', 'x')`
    await journal.look()
    const end = await position()
    await rotateFor(SLOT * 8000)
    expect(await position()).toBe(end)
    const [left] =
      await sql`select (select count(*) from pgws.messages)::int as messages, (select count(*) from pgws.batches)::int as batches`
    expect(left?.messages).toBe(0)
    expect(left?.batches).toBeLessThan(20)
    await sql`select pgws.publish('idle', 'y')`
    await journal.look()
    expect((await sql`select payload from pgws.history('idle', ${end})`).map(({ payload }) => payload)).toEqual(['y'])
  })
})

describe('an epoch', () => {
  beforeEach(async () => {
    await sql`select pgws.begin_session('1 day')`
  })

  test('of an earlier timeline is good up to where the present one began, and lost beyond', async () => {
    await sql`select pgws.publish('fork', 'before')`
    await journal.look()
    const before = await position()
    // As it is on a replica that was promoted: what was numbered behind this was never replicated.
    await sql`update pgws.epochs set timeline = 77 where number = (select max(number) from pgws.epochs)`
    const [cluster = '', number] = before.replace(/\.\d+-/, ' ').split(' ')
    const earlier = (behind: number) => `${cluster}.77-${Number(number) + behind}`
    await sql`select pgws.begin_session('1 day')`
    await sql`select pgws.publish('fork', 'behind')`
    await journal.look()
    expect((await sql`select payload from pgws.history('fork', ${earlier(0)})`).map(({ payload }) => payload)).toEqual(['behind'])
    expect((await sql`select payload from pgws.history('fork', ${earlier(-1)})`).map(({ payload }) => payload)).toEqual([
      'before',
      'behind',
    ])
    expect(await codeOf(sql`select pgws.history('fork', ${earlier(1)})`)).toBe('PT410')
    const rows = await sql`select position from pgws.history('fork')`
    expect(rows.map(({ position }) => String(position).split('-')[0])).toEqual([`${cluster}.77`, `${cluster}.1`])
  })

  test('of another cluster is lost, and what a restored dump brought is not taken for new', async () => {
    await sql`select pgws.publish('dump', 'from the other cluster')`
    await journal.look()
    const before = await position()
    // As it is when a dump was restored: transaction ids and snapshots are those of the cluster that was dumped.
    await sql.unsafe(`update pgws.epochs set cluster = cluster - 1; update pgws.messages set cluster = cluster - 1`)
    await sql.unsafe(`update pgws.messages set xid = (xid::text::bigint + 1000000)::text::xid8 where number = 1`)
    await sql`select pgws.publish('dump', 'ahead of the first server')`
    expect(await codeOf(sql`select pgws.position()`)).toBe('fine')
    await sql`select pgws.begin_session('1 day')`
    await journal.look()
    await sql`select pgws.publish('dump', 'new')`
    await journal.look()
    expect(await history('dump')).toEqual(['ahead of the first server', 'new'])
    expect(await codeOf(sql`select pgws.history('dump', ${before.replace(/^[^.]+/, 'abc')})`)).toBe('PT410')
  })
})
