/** What clients send into the journal is there once and in its order, however often and in which parts a batch comes again. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import type postgres from 'postgres'
import { createKeeping } from '../../lib/broker/postgres/carriers.ts'
import { createPipeline, type Settled } from '../../lib/broker/postgres/pipeline.ts'
import type { Envelope } from '../../lib/channels/envelope.ts'
import { type Connection, DatabaseError, type Row } from '../../lib/database/connection.ts'
import { type JournalDatabase, startJournal } from '../support/journal.ts'
import { createRandom, type Random } from '../support/random.ts'
import { until } from '../support/until.ts'

let journal: JournalDatabase
let sql: postgres.Sql
let old: postgres.Sql
let before = 0

beforeAll(async () => {
  journal = await startJournal()
  sql = journal.sql
  old = journal.session()
})
afterAll(() => journal.stop())
beforeEach(async () => {
  before = (await journal.look()).head
})

/** The payloads that came into the journal since the test began, in its order. */
async function published(): Promise<string[]> {
  await journal.look()
  const rows = await sql`select position::int, payload from pgws.read(${before}, 100000, 2000000000, 1)`
  return rows.map(({ payload }) => String(payload))
}

/** The numbers of a batch: the first and the last. */
type Range = readonly [number, number]

const range = (first: number, last: number): string[] =>
  Array.from({ length: last - first + 1 }, (_, index) => String(first + index))

type Session = postgres.Sql | postgres.TransactionSql

interface Message {
  readonly channel?: string
  readonly payload: string
  readonly key?: string | undefined
}

function publish(session: Session, sender: string, first: number, messages: readonly Message[]) {
  const list = (values: readonly (string | null)[]) =>
    session`array(select json_array_elements_text(${JSON.stringify(values)}::text::json))`
  const channels = list(messages.map(({ channel = 'chat' }) => channel))
  const keys = list(messages.map(({ key = null }) => key))
  return session`select pgws.publish_batch(${sender}, ${first}, ${channels}, ${list(messages.map(({ payload }) => payload))}, ${keys})`
}

/** Publishes messages that say their numbers. @param keys of some of them, by number. */
const send = (session: Session, sender: string, [first, last]: Range, keys: Readonly<Record<number, string>> = {}) =>
  publish(
    session,
    sender,
    first,
    range(first, last).map((payload) => ({ payload, key: keys[Number(payload)] })),
  )

const waits = async (): Promise<boolean> =>
  (await sql`select from pg_locks where locktype = 'advisory' and not granted`).length > 0

describe('a batch that comes again is published once, in its order,', () => {
  const cases: readonly [string, readonly Range[]][] = [
    ['as it was', [[1, 8], [1, 8]]], // biome-ignore format: as ranges
    ['in halves', [[1, 8], [1, 4], [5, 8]]], // biome-ignore format: as ranges
    ['whole behind its first half', [[1, 4], [1, 8], [5, 8]]], // biome-ignore format: as ranges
    ['whole behind both halves', [[1, 4], [5, 8], [1, 8]]], // biome-ignore format: as ranges
    ['whole behind a single message', [[1, 1], [1, 8], [2, 2], [3, 4]]], // biome-ignore format: as ranges
    ['with others behind it', [[1, 4], [5, 6], [1, 4], [5, 8]]], // biome-ignore format: as ranges
  ]
  test.each(cases)('%s', async (_, sent) => {
    const sender = crypto.randomUUID()
    for (const numbers of sent) await send(sql, sender, numbers)
    expect(await published()).toEqual(range(1, 8))
  })

  test.each([
    ['whole', 'half', [1, 8], [1, 4]],
    ['half', 'whole', [1, 4], [1, 8]],
    ['whole', 'whole', [1, 8], [1, 8]],
    ['whole', 'second half', [1, 8], [5, 8]],
  ] as const)('the %s and the %s under way at once: one waits for the end of the other', async (...[, , first, second]) => {
    for (const end of ['commit', 'rollback']) {
      before = (await journal.look()).head
      const sender = crypto.randomUUID()
      await old.unsafe('begin')
      await send(old, sender, first)
      const other = journal.session()
      const sent = send(other, sender, second).execute()
      await until(waits)
      await old.unsafe(end)
      await sent
      const reached = end === 'commit' ? range(1, Math.max(first[1], second[1])) : range(second[0], second[1])
      expect(await published()).toEqual(reached)
    }
  })
})

test('two servers do not wait for each other, and number for themselves', async () => {
  await old.begin(async (session) => {
    await send(session, crypto.randomUUID(), [1, 3])
    await send(sql, crypto.randomUUID(), [1, 3])
  })
  expect(await published()).toEqual([...range(1, 3), ...range(1, 3)])
})

test('keys count within a batch, and beside it, at whatever place they stand', async () => {
  await sql`select pgws.publish('chat', 'ahead', 'a')`
  await send(sql, crypto.randomUUID(), [1, 9], { 1: 'a', 2: 'b', 4: 'b', 5: 'c', 9: 'd' })
  await send(sql, crypto.randomUUID(), [10, 12], { 10: 'd', 11: 'a', 12: 'c' })
  await send(sql, crypto.randomUUID(), [13, 15], { 14: 'd' })
  expect(await published()).toEqual(['ahead', '2', '3', '5', '6', '7', '8', '9', '13', '15'])
  const rows =
    await sql`select number, has_key from pgws.messages where payload in ('5', '6', '9') order by xid desc, number limit 3`
  expect(rows.map(({ has_key }) => has_key)).toEqual([true, false, true])
})

describe('a batch with one message that does not fit is refused as a whole, for the reason of that message:', () => {
  const cases: readonly [string, string, string, string][] = [
    ['a channel that is too long', 'é'.repeat(513), 'x', 'a channel has 1 to 1024 bytes; this one has 1026'],
    ['an empty channel', '', 'x', 'a channel has 1 to 1024 bytes; this one has 0'],
    ['a payload over 1 MiB', 'chat', 'x'.repeat(1_048_577), 'a payload has at most 1048576 bytes; this one has 1048577'],
  ]
  test.each(cases)('%s', async (_, channel, payload, message) => {
    for (const place of [0, 1, 2]) {
      const messages: Message[] = [{ payload: 'a' }, { payload: 'b' }, { payload: 'c' }]
      messages[place] = { channel, payload }
      await expect(Promise.resolve(publish(sql, crypto.randomUUID(), 1, messages))).rejects.toThrow(message)
    }
    expect(await published()).toEqual([])
  })

  test('and what just fits does', async () => {
    const payload = 'x'.repeat(1_048_576)
    await publish(sql, crypto.randomUUID(), 1, [{ payload: 'a' }, { channel: 'é'.repeat(512), payload }])
    expect(await published()).toEqual(['a', payload])
  })
})

test('a transaction that could not see what another one committed may publish no batch', async () => {
  const sent = sql.begin('isolation level repeatable read', (session) => send(session, crypto.randomUUID(), [1, 2]))
  await expect(sent).rejects.toThrow('run it in read committed')
})

/**
 * A session that loses answers, in each way there is: the statement came to its end, never came, or comes to its end at a later time, beside
 * the session that is used then.
 */
function lossy(opened: postgres.Sql, random: Random, late: Promise<unknown>[]): Connection {
  const ended = Promise.withResolvers<void>()
  let isOpen = true
  const run = async (statement: string, parameters: readonly string[]): Promise<readonly Row[]> => [
    ...(await opened.unsafe(statement, [...parameters])),
  ]
  const lost = (): never => {
    isOpen = false
    ended.resolve()
    throw new DatabaseError('the connection ended', 'CONNECTION_CLOSED', false)
  }
  return {
    server: { place: '', version: '', encrypted: false, backend: { pid: '', startedAt: '' } },
    closed: ended.promise,
    close: () => ended.resolve(),
    async query(statement, parameters = []) {
      const kind = isOpen ? random.below(12) : 1
      if (kind === 1) return lost()
      const answer = run(statement, parameters)
      if (kind === 2) {
        const delayed = Bun.sleep(random.below(10)).then(() => run(statement, parameters))
        late.push(Promise.allSettled([answer, delayed]))
        return lost()
      }
      const rows = await answer.catch((error) => {
        throw new DatabaseError(error.message, error.code, true)
      })
      return kind === 0 || !isOpen ? lost() : rows
    },
  }
}

test('whatever answers are lost, each message that is not refused is published once, and in the order in which it was sent', async () => {
  const seed = Date.now() % 1_000_000
  const random = createRandom(seed)
  const sessions = Array.from({ length: 4 }, () => journal.session())
  const late: Promise<unknown>[] = []
  let session: Connection | undefined
  let opened = 0
  const pipeline = createPipeline<Envelope>(async () => {
    if (!session) {
      const made = lossy(sessions[opened++ % sessions.length] as postgres.Sql, random, late)
      void made.closed.then(() => {
        if (session === made) session = undefined
      })
      session = made
    }
    return session
  })
  const carrier = createKeeping()
  const settled: Settled<Envelope>[] = []
  let count = 0
  const refused = new Set<string>()
  const message = (): Envelope => {
    const text = String(++count)
    const isWrong = random.below(40) === 0
    if (isWrong) refused.add(text)
    const key = random.below(20) === 0 ? `${seed} ${text}` : undefined
    return { channel: isWrong ? 'x'.repeat(1025) : 'chat', key, head: `${text} `, tail: '', bytes: 0 }
  }
  for (let round = 0; round < 150; round++) {
    pipeline.resume()
    while (random.below(4) > 0 && pipeline.takes(true))
      pipeline.post(Array.from({ length: 1 + random.below(20) }, message), carrier)
    const ahead = await pipeline.settle()
    if (ahead) settled.push(ahead)
  }
  for (pipeline.resume(); pipeline.messages > 0; pipeline.resume()) {
    const ahead = await pipeline.settle()
    if (ahead) settled.push(ahead)
  }
  await Promise.all(late)
  const texts = (await published()).map((text) => text.split(' ')[0] ?? '')
  expect({ seed, texts }).toEqual({ seed, texts: range(1, count).filter((text) => !refused.has(text)) })
  const told = settled.flatMap((one) => (one.kind === 'refused' ? [one.message.head.trim()] : []))
  expect(new Set(told)).toEqual(refused)
  expect(settled.filter(({ kind }) => kind === 'delayed').length).toBeGreaterThan(10)
})
