/** What the journal keeps, for whom it is told that something is lost, and what a key and a row trigger publish. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type postgres from 'postgres'
import { type JournalDatabase, startJournal } from '../support/journal.ts'
import { unique } from '../support/setup.ts'

let journal: JournalDatabase
let sql: postgres.Sql

beforeAll(async () => {
  journal = await startJournal()
  sql = journal.sql
})
afterAll(() => journal.stop())

const publish = async (channel: string, payload: string, key: string | null = null): Promise<void> => {
  await sql`select pgws.publish(${channel}, ${payload}, ${key})`
}

async function history(channel: string, since: string | null = null, last = 100): Promise<string[]> {
  await journal.look()
  return (await sql`select payload from pgws.history(${channel}, ${since}, ${last})`).map(({ payload }) => String(payload))
}

/** The SQLSTATE of what a statement is refused with. */
const codeOf = async (statement: Promise<unknown>): Promise<unknown> => {
  const error: unknown = await statement.then(
    () => undefined,
    (found) => found,
  )
  return error instanceof Error && 'code' in error ? error.code : error
}

const position = async (session: postgres.Sql | postgres.TransactionSql = sql): Promise<string> =>
  String((await session`select pgws.position() as position`)[0]?.position)

describe('a key', () => {
  test('publishes once, also within one transaction, and is one set a channel', async () => {
    const channel = unique('keys')
    for (const payload of ['first', 'second']) await publish(channel, payload, 'k')
    await sql.begin(async (transaction) => {
      for (const payload of ['third', 'fourth']) await transaction`select pgws.publish(${channel}, ${payload}, 'other')`
    })
    await publish(`${channel}-2`, 'elsewhere', 'k')
    expect(await history(channel)).toEqual(['first', 'third'])
    expect(await history(`${channel}-2`)).toEqual(['elsewhere'])
  })

  test('publishes again once its transaction was rolled back', async () => {
    const channel = unique('keys')
    await sql
      .begin(async (transaction) => {
        await transaction`select pgws.publish(${channel}, 'gone', 'k')`
        throw new Error('rolled back')
      })
      .catch(() => undefined)
    await publish(channel, 'kept', 'k')
    expect(await history(channel)).toEqual(['kept'])
  })

  test('publishes once in two transactions at once, of which neither waits', async () => {
    for (const isLookedBetween of [true, false]) {
      const channel = unique('keys')
      const other = journal.session()
      await sql.begin(async (late) => {
        await late`select pgws.publish(${channel}, 'second', 'k')`
        await other`select pgws.publish(${channel}, 'first', 'k')`
        await other`select pgws.publish(${channel}, 'more')`
        if (isLookedBetween) await other`select pgws.look()`
        await late`select pgws.publish(${channel}, 'without a key')`
      })
      expect(await history(channel)).toEqual(
        isLookedBetween ? ['first', 'more', 'without a key'] : ['second', 'without a key', 'more'],
      )
    }
  })

  test('publishes again after an hour', async () => {
    const channel = unique('keys')
    await publish(channel, 'first', 'k')
    await sql`update pgws.keys set published_at = published_at - interval '59 minutes' where channel = ${channel}`
    await publish(channel, 'within the hour', 'k')
    await sql`update pgws.keys set published_at = published_at - interval '1 minute' where channel = ${channel}`
    await publish(channel, 'second', 'k')
    expect(await history(channel)).toEqual(['first', 'second'])
  })
})

describe('publish_change', () => {
  beforeAll(async () => {
    await sql.unsafe(`
      create table orders (id int, "Part" text, note text, primary key (id, "Part"));
      create trigger publish after insert or update or delete on orders for each row execute function pgws.publish_change('orders');
      create role clerk login password '${journal.server.password}'; grant all on orders to clerk`)
  })

  test('publishes what a writer without any right in pgws changes', async () => {
    const clerk = journal.session('clerk')
    const since = await position()
    await clerk`insert into orders values (1, 'a', 'x"y')`
    await clerk`update orders set note = null`
    await clerk`delete from orders`
    const rows = await history('orders', since)
    expect(rows.slice(0, 1)).toEqual(['{"op":"INSERT","table":"public.orders","new":{"id": 1, "Part": "a", "note": "x\\"y"}}'])
    expect(rows.map((text) => JSON.parse(text)).slice(1)).toEqual([
      {
        op: 'UPDATE',
        table: 'public.orders',
        new: { id: 1, Part: 'a', note: null },
        old: { id: 1, Part: 'a', note: 'x"y' },
      },
      { op: 'DELETE', table: 'public.orders', old: { id: 1, Part: 'a', note: null } },
    ])
  })

  test('publishes a row over 1 MiB with its primary key alone, and fails no write', async () => {
    const since = await position()
    await sql`insert into orders values (2, 'b', repeat('x', 1048576))`
    await sql`update orders set note = 'short'`
    await sql`delete from orders`
    const rows = (await history('orders', since)).map((text) => JSON.parse(text))
    const key = { id: 2, Part: 'b' }
    expect(rows).toEqual([
      { op: 'INSERT', table: 'public.orders', new: key, truncated: true },
      { op: 'UPDATE', table: 'public.orders', new: key, old: key, truncated: true },
      { op: 'DELETE', table: 'public.orders', old: { ...key, note: 'short' } },
    ])
  })

  test('fails no write with a row that cannot be written as JSON at all', async () => {
    await sql.unsafe(`create table odd (id int primary key, document json);
      create trigger publish after insert on odd for each row execute function pgws.publish_change('odd');
      insert into odd values (1, '"\\u0000"')`)
    expect(await history('odd')).toEqual(['{"op":"INSERT","table":"public.odd","new":{"id": 1},"truncated":true}'])
  })

  test('publishes a row over 1 MiB of a table without a primary key as an empty one', async () => {
    await sql.unsafe(`create table heaps (note text);
      create trigger publish after insert on heaps for each row execute function pgws.publish_change('heaps')`)
    await sql`insert into heaps values (repeat('x', 2000000))`
    expect(await history('heaps')).toEqual(['{"op":"INSERT","table":"public.heaps","new":{},"truncated":true}'])
  })
})

describe('a position', () => {
  test('that is taken with a state in one statement misses nothing that the state does not hold', async () => {
    const channel = unique('state')
    const [reader, writer] = [journal.session(), journal.session()]
    await sql.unsafe('create table numbers (n int)')
    for (let round = 0; round < 20; round++) {
      const writing = (async () => {
        for (let index = 0; index < 5; index++) {
          await writer`with put as (insert into numbers values (${round * 5 + index}) returning n) select pgws.publish(${channel}, n::text) from put`
          await writer`select pgws.look()`
        }
      })()
      const [taken] =
        await reader`select coalesce(array_to_json(array_agg(n)), '[]') as state, pgws.position() as at from numbers`
      await writing
      const behind = (await history(channel, String(taken?.at), 1000)).map(Number)
      const state = taken?.state as number[]
      const all = new Set([...state, ...behind])
      expect(all.size).toBe((round + 1) * 5)
    }
  })

  test('is that of the snapshot, not of the moment', async () => {
    const [reader, writer] = [journal.session(), journal.session()]
    await journal.look()
    const before = await position()
    await writer`select pg_advisory_lock(1)`
    const asked = reader`select pg_advisory_lock_shared(1), pgws.position() as position`.execute()
    while ((await sql`select from pg_locks where not granted`).length === 0) await Bun.sleep(1)
    await publish('chat', 'committed after the statement began')
    await journal.look()
    await writer`select pg_advisory_unlock(1)`
    expect((await asked)[0]?.position).toBe(before)
  })

  test('is that of the snapshot of a transaction', async () => {
    await journal.look()
    await sql.begin('isolation level repeatable read', async (transaction) => {
      const before = await position(transaction)
      const other = journal.session()
      await other`select pgws.publish('chat', 'x')`
      await other`select pgws.look()`
      expect(await position(transaction)).toBe(before)
      expect(await position(other)).not.toBe(before)
    })
  })

  test('rises by one a message, by the order of delivery', async () => {
    const channel = unique('rising')
    for (const payload of ['a', 'b']) await publish(channel, payload)
    await journal.look()
    const rows = await sql`select position from pgws.history(${channel})`
    const numbers = rows.map(({ position }) => Number(String(position).split('-')[1]))
    expect((numbers[1] ?? 0) - (numbers[0] ?? 0)).toBe(1)
    expect(String(rows[1]?.position)).toBe(await position())
  })
})

describe('history', () => {
  test('is the last messages of a channel, oldest first, or the first behind a position', async () => {
    const channel = unique('history')
    const numbers = Array.from({ length: 25 }, (_, index) => String(index))
    const start = await position()
    for (const number of numbers) {
      await publish(channel, number)
      await publish('between', number)
      if (Number(number) % 4 === 0) await journal.look()
    }
    expect(await history(channel)).toEqual(numbers)
    expect(await history(channel, null, 10)).toEqual(numbers.slice(15))
    expect(await history(channel, start, 10)).toEqual(numbers.slice(0, 10))
    expect(await history('nobody')).toEqual([])
  })

  test('goes in pages, with long transactions beside it and within it, without a gap or a double', async () => {
    const channel = unique('pages')
    const [long, longer] = [journal.session(), journal.session()]
    const expected: string[] = []
    await longer`begin`
    await longer`select pgws.publish(${channel}, 'longer 1')`
    for (let round = 0; round < 30; round++) {
      if (round === 5) {
        await long`begin`
        for (let index = 0; index < 40; index++) await long`select pgws.publish(${channel}, ${`long ${index}`})`
      }
      if (round === 12) {
        await long`commit`
        expected.splice(-1, 0, ...Array.from({ length: 40 }, (_, index) => `long ${index}`))
      }
      if (round === 22) {
        await longer`commit`
        expected.splice(-1, 0, 'longer 1')
      }
      // Of one look, transactions come by their ids: the long one ahead of the short one of the round before.
      await journal.look()
      await publish(channel, `short ${round}`)
      expected.push(`short ${round}`)
    }
    await journal.look()
    for (const limit of [1, 3, 7, 50]) {
      const seen: string[] = []
      let since: string | null = String((await sql`select pgws.position_text(0) as position`)[0]?.position)
      while (since !== null) {
        const page: postgres.RowList<postgres.Row[]> = await sql`select * from pgws.history(${channel}, ${since}, ${limit})`
        seen.push(...page.map(({ payload }) => String(payload)))
        since = page.length === 0 ? null : String(page.at(-1)?.position)
      }
      expect(seen).toEqual(expected)
    }
    for (const last of [1, 5, 20, 60]) expect(await history(channel, null, last)).toEqual(expected.slice(-last))
  })

  test('refuses a position that is malformed, of another cluster, or beyond the newest', async () => {
    const at = await position()
    const [epoch = '', number = ''] = at.split('-')
    expect(await codeOf(sql`select pgws.history('chat', 'nonsense')`)).toBe('PT400')
    expect(await codeOf(sql`select pgws.history('chat', null, 0)`)).toBe('PT400')
    for (const lost of [`${epoch}-${Number(number) + 1}`, `abc.1-${number}`, `${epoch.replace(/\.\d+$/, '.9')}-${number}`])
      expect(await codeOf(sql`select pgws.history('chat', ${lost})`)).toBe('PT410')
    expect(await history('chat', at)).toEqual([])
  })
})
