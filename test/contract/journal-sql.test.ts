/** What a publisher can rely on, in SQL's own terms. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import type postgres from 'postgres'
import { createKeeping } from '../../lib/broker/postgres/carriers.ts'
import { type JournalDatabase, startJournal } from '../support/journal.ts'

let journal: JournalDatabase
let sql: postgres.Sql

beforeAll(async () => {
  journal = await startJournal({ max_prepared_transactions: '5' })
  sql = journal.sql
})
afterAll(() => journal.stop())

let before = 0

beforeEach(async () => {
  before = (await journal.look()).head
})

/** The payloads that came into the journal since the test began, in its order. */
async function published(): Promise<string[]> {
  await journal.look()
  const rows = await sql`select payload from pgws.read(${before}, 100000, 2000000000, 1)`
  return rows.map(({ payload }) => String(payload))
}

const refused = async (statement: Promise<unknown>): Promise<string> => {
  const error: unknown = await statement.then(
    () => undefined,
    (found) => found,
  )
  return error instanceof Error ? error.message : 'not refused'
}

describe('what is published', () => {
  test('comes if and when the transaction commits, and none of it after a rollback', async () => {
    const other = journal.session()
    await sql.begin(async (transaction) => {
      await transaction`select pgws.publish('chat', 'kept')`
      const [found] = await other`select fresh from pgws.look()`
      expect(found?.fresh).toBe(0)
    })
    await sql
      .begin(async (transaction) => {
        await transaction`select pgws.publish('chat', 'gone')`
        throw new Error('rolled back')
      })
      .catch(() => undefined)
    expect(await published()).toEqual(['kept'])
  })

  test('leaves with its savepoint, also the first message of a transaction, and numbers have no gap', async () => {
    await sql.begin(async (transaction) => {
      const undone = (payload: string) =>
        transaction
          .savepoint(async (savepoint) => {
            await savepoint`select pgws.publish('chat', ${payload})`
            throw new Error('rolled back')
          })
          .catch(() => undefined)
      await undone('gone 1')
      await transaction`select pgws.publish('chat', 'one')`
      await undone('gone 2')
      await transaction.savepoint((savepoint) => savepoint`select pgws.publish('chat', 'two')`)
      await transaction`select pgws.publish('chat', 'three')`
    })
    expect(await published()).toEqual(['one', 'two', 'three'])
    const [stand] = await sql`select head::int from pgws.stand()`
    expect(stand?.head).toBe(before + 3)
  })

  test('leaves with the block of a function that caught an exception, also in a function that sets variables', async () => {
    await sql.unsafe(`create or replace function publish_some() returns void language plpgsql set search_path = public as $$
      begin
        perform pgws.publish('chat', 'one');
        begin
          perform pgws.publish('chat', 'gone');
          perform 1 / 0;
        exception when division_by_zero then
          perform pgws.publish('chat', 'two');
        end;
      end $$`)
    await sql.begin(async (transaction) => {
      await transaction`select publish_some()`
      await transaction`select pgws.publish('chat', 'three')`
    })
    expect(await published()).toEqual(['one', 'two', 'three'])
  })

  test('survives RESET ALL within its transaction', async () => {
    await sql.begin(async (transaction) => {
      for (const payload of ['one', 'two']) await transaction`select pgws.publish('chat', ${payload})`
      await transaction`reset all`
      await transaction`select pgws.publish('chat', 'three')`
    })
    expect(await published()).toEqual(['one', 'two', 'three'])
  })

  test('does not wait for constraints: those set deferred, or immediate, change nothing', async () => {
    await sql.unsafe('create table parents (id int primary key)')
    await sql.unsafe('create table children (id int references parents deferrable initially deferred)')
    await sql.begin(async (transaction) => {
      await transaction`insert into children values (1)`
      await transaction`select pgws.publish('chat', 'one')`
      await transaction`insert into parents values (1)`
      await transaction`set constraints all immediate`
      await transaction`select pgws.publish('chat', 'two')`
    })
    const failing = sql.begin(async (transaction) => {
      await transaction`insert into children values (2)`
      await transaction`select pgws.publish('chat', 'gone')`
    })
    expect(await refused(failing)).toContain('violates foreign key')
    expect(await published()).toEqual(['one', 'two'])
  })

  test('comes with a prepared transaction when that is committed, and not when it is rolled back', async () => {
    for (const [name, end] of [
      ['first', 'commit'],
      ['second', 'rollback'],
    ]) {
      await sql.unsafe(`begin; select pgws.publish('chat', '${name}'); prepare transaction '${name}'`)
      expect(await published()).toEqual(end === 'commit' ? [] : ['first'])
      await sql.unsafe(`${end} prepared '${name}'`)
    }
    expect(await published()).toEqual(['first'])
  })

  test('comes under session_replication_role, and in every isolation level', async () => {
    await sql.begin(async (transaction) => {
      await transaction`set local session_replication_role = replica`
      await transaction`select pgws.publish('chat', 'replica')`
    })
    for (const level of ['read uncommitted', 'read committed', 'repeatable read', 'serializable'])
      await sql.begin(`isolation level ${level}`, (transaction) => transaction`select pgws.publish('chat', ${level})`)
    expect(await published()).toEqual(['replica', 'read uncommitted', 'read committed', 'repeatable read', 'serializable'])
  })

  test('is the text, byte for byte, also an empty one, up to 1 MiB', async () => {
    const texts = ['', ' é\u{1f600}\n\\x00 ', 'x'.repeat(1_048_576), 'é'.repeat(524_288)]
    for (const text of texts) await sql`select pgws.publish('chat', ${text})`
    expect(await published()).toEqual(texts)
  })
})

test('a batch of the server is one transaction, in its order, and once however often it is sent', async () => {
  const { statement, parameters } = createKeeping()
  const channels = ['a', 'b \u0001', 'a']
  const messages = channels.map((channel) => ({ channel, head: '{"at":', tail: '', bytes: 0 }))
  const texts = ['1', '2', '3'].map((stamp) => `{"at":${stamp}}`)
  for (const [after, number] of [
    ['', '1'],
    ['', '1'],
    ['1', '2'],
    ['7', '8'],
  ] as const)
    await sql.unsafe(statement, [after, number, ...parameters(messages, texts, 1)])
  expect(await published()).toEqual(texts)
})

describe('an error says what it is', () => {
  const cases: readonly [string, string | null, string | null, string | null, string][] = [
    ['a null channel', null, 'x', null, 'the channel is null'],
    ['a null payload', 'chat', null, null, 'the payload is null'],
    ['an empty channel', '', 'x', null, 'a channel has 1 to 1024 bytes; this one has 0'],
    ['a channel of 1,025 bytes', `${'é'.repeat(512)}x`, 'x', null, 'this one has 1025'],
    ['a payload over 1 MiB', 'chat', `${'é'.repeat(524_288)}x`, null, 'at most 1048576 bytes; this one has 1048577'],
    ['an empty key', 'chat', 'x', '', 'a key has 1 to 1024 bytes'],
  ]
  test.each(cases)('%s', async (_, channel, payload, key, message) => {
    expect(await refused(sql`select pgws.publish(${channel}, ${payload}, ${key})`)).toContain(message)
  })
  test('a channel of 1,024 bytes is none', async () => {
    await sql`select pgws.publish(${'é'.repeat(512)}, 'x')`
    expect(await published()).toEqual(['x'])
  })
})

describe('who may publish', () => {
  test('needs usage of the schema and execute, and no other right; public has neither', async () => {
    await sql.unsafe(`create role app login password '${journal.server.password}'`)
    const app = journal.session('app')
    expect(await refused(app`select pgws.publish('chat', 'x')`)).toContain('permission denied for schema pgws')
    await sql.unsafe('grant usage on schema pgws to app')
    for (const call of [
      "publish('chat', 'x')",
      'position()',
      "history('chat')",
      'look()',
      'rotate()',
      'read(0, 1, 1, 1)',
      'stand()',
      'version()',
    ])
      expect(await refused(app.unsafe(`select pgws.${call}`))).toContain('permission denied for function')
    await sql.unsafe('grant execute on function pgws.publish to app')
    await app`select pgws.publish('chat', 'from app')`
    expect(await refused(app`select * from pgws.messages`)).toContain('permission denied for table')
    expect(await published()).toEqual(['from app'])
  })

  test('cannot slip in functions, operators or tables of his own by search_path or temporary tables', async () => {
    await sql.unsafe(`create role mallory login password '${journal.server.password}'; create schema evil authorization mallory;
      grant usage on schema pgws to mallory; grant execute on function pgws.publish to mallory`)
    const mallory = journal.session('mallory')
    await mallory.unsafe(`
      create function evil.octet_length(text) returns int language plpgsql as $$ begin raise exception 'evil ran'; end $$;
      create function evil.text_gt(a int, b int) returns boolean language plpgsql as $$ begin raise exception 'evil ran'; end $$;
      create operator evil.> (leftarg = int, rightarg = int, function = evil.text_gt);
      create function evil.clock_timestamp() returns timestamptz language plpgsql as $$ begin raise exception 'evil ran'; end $$;
      create temporary table settings (slot_seconds float8);
      create temporary table messages (x int);
      set search_path = evil, pg_temp, pg_catalog, public`)
    await mallory`select pgws.publish('chat', 'from mallory')`
    expect(await published()).toEqual(['from mallory'])
  })
})

describe('order', () => {
  test('of two transactions of which one ended before the other first wrote, the first comes first', async () => {
    const other = journal.session()
    await sql.begin(async (late) => {
      await late`select 1`
      await other`select pgws.publish('chat', 'first')`
      await late`select pgws.publish('chat', 'second')`
    })
    expect(await published()).toEqual(['first', 'second'])
  })

  test('a long transaction that has written delays nobody, and comes as one piece when it commits', async () => {
    const other = journal.session()
    await sql.begin(async (long) => {
      await long`select pgws.publish('chat', 'long 1')`
      const looks: number[] = []
      for (let number = 1; number <= 3; number++) {
        await other`select pgws.publish('chat', ${`short ${number}`})`
        const [look] = await other`select fresh from pgws.look()`
        looks.push(Number(look?.fresh))
      }
      expect(looks).toEqual([1, 1, 1])
      await long`select pgws.publish('chat', 'long 2')`
    })
    expect(await published()).toEqual(['short 1', 'short 2', 'short 3', 'long 1', 'long 2'])
  })

  test('two looks at once number nothing twice: one of them fails, or finds what the other left', async () => {
    const sessions = [journal.session(), journal.session(), journal.session()]
    let next = 0
    for (let round = 0; round < 30; round++) {
      await sql.begin(async (transaction) => {
        for (let index = 0; index < 3; index++) await transaction`select pgws.publish('chat', ${String(next++)})`
      })
      await Promise.allSettled(sessions.map((session) => session`select pgws.look()`))
    }
    expect(await published()).toEqual(Array.from({ length: next }, (_, index) => String(index)))
    const rows = await sql`select position::int from pgws.read(${before}, 1000, 1000000, 1)`
    expect(rows.map(({ position }) => Number(position) - before)).toEqual(Array.from({ length: next }, (_, index) => index + 1))
  })

  test('the one that fails follows the same batch as another: its batch is a duplicate', async () => {
    const [other, watcher] = [journal.session(), journal.session()]
    await sql`select pgws.publish('chat', 'x')`
    let second: Promise<string> | undefined
    await sql.begin(async (first) => {
      await first`select pgws.look()`
      second = refused(other`select pgws.look()`)
      while ((await watcher`select from pg_locks where not granted`).length === 0) await Bun.sleep(5)
    })
    expect(await second).toContain('duplicate key')
    expect(await published()).toEqual(['x'])
  })
})

describe('the bell', () => {
  test('is rung once a transaction, unless the sequencer is awake, and never where transactions can be prepared', async () => {
    const quiet = await startJournal()
    try {
      const rung: string[] = []
      await quiet.sql.listen('pgws_published', () => rung.push('bell'))
      const barrier = async (): Promise<string[]> => {
        const heard = Promise.withResolvers<void>()
        const { unlisten } = await quiet.sql.listen('barrier', () => heard.resolve())
        await quiet.sql`select pg_notify('barrier', '')`
        await heard.promise
        await unlisten()
        return rung.splice(0)
      }
      await quiet.sql`select pgws.publish('chat', 'x'), pgws.publish('chat', 'y')`
      expect(await barrier()).toEqual(['bell'])
      const sequencer = quiet.session()
      await sequencer`select pgws.wake()`
      await quiet.sql`select pgws.publish('chat', 'x')`
      expect(await barrier()).toEqual([])
      await sequencer`select pgws.fall_asleep()`
      await quiet.sql`select pgws.publish('chat', 'x')`
      expect(await barrier()).toEqual(['bell'])
    } finally {
      await quiet.stop()
    }
    const heard: string[] = []
    await sql.listen('pgws_published', () => heard.push('bell'))
    await sql.listen('pgws_sequenced', () => heard.push('sequenced'))
    await sql`select pgws.publish('chat', 'x')`
    await journal.look()
    while (heard.length === 0) await Bun.sleep(1)
    expect(heard).toEqual(['sequenced'])
  })
})
