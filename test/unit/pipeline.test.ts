import { expect, test } from 'bun:test'
import { createNotifying } from '../../lib/broker/postgres/carriers.ts'
import { BATCH, createPipeline, type Pipeline, type Settled } from '../../lib/broker/postgres/pipeline.ts'
import type { Envelope } from '../../lib/channels/envelope.ts'
import type { Connection } from '../../lib/database/connection.ts'
import { count, createFakeDatabase, type FakeDatabase, messagesOf, namesIn, quiet } from '../support/fake-database.ts'

const carrier = createNotifying('carrier')

/** A pipeline whose session is made again when the last one has ended. */
function createOver(database: FakeDatabase): Pipeline<Envelope> {
  let session: Promise<Connection> | undefined
  return createPipeline(() => {
    session ??= database.connect()
    void session.then(
      ({ closed }) => closed.then(() => (session = undefined)),
      () => (session = undefined),
    )
    return session
  })
}

/** As the notifier does, but without waits: until nothing is under way or to be sent again. */
async function settleAll(pipeline: Pipeline<Envelope>): Promise<Settled<Envelope>[]> {
  const settled: Settled<Envelope>[] = []
  for (pipeline.resume(); pipeline.messages > 0; pipeline.resume()) {
    const one = await pipeline.settle()
    if (one) settled.push(one)
  }
  return settled
}

const kinds = (settled: readonly Settled<Envelope>[]): string[] => settled.map(({ kind }) => kind)

/** A database that leaves batches open. */
function createSilent(): FakeDatabase {
  const database = createFakeDatabase()
  database.answers = () => undefined
  return database
}

test('a batch is one statement on the channel, with its messages in their order', async () => {
  const database = createSilent()
  const pipeline = createOver(database)
  pipeline.post(messagesOf('a', 'b', 'c'), carrier)
  await quiet()
  const [batch, ...more] = database.asked('batch')
  expect(more).toEqual([])
  expect(batch?.values[2]).toBe('carrier')
  expect(namesIn(batch)).toEqual(['a', 'b', 'c'])
  expect(pipeline.messages).toBe(3)
})

test('no two messages bear one stamp, and a later one bears a later stamp', async () => {
  const database = createFakeDatabase()
  const pipeline = createOver(database)
  for (const _ of count(3)) pipeline.post(messagesOf(...count(BATCH)), carrier)
  await settleAll(pipeline)
  const stamps = database.committed.map((notification) => Number.parseFloat(notification))
  expect(stamps).toHaveLength(3 * BATCH)
  expect(new Set(stamps).size).toBe(3 * BATCH)
  expect(stamps.toSorted((one, other) => one - other)).toEqual(stamps)
})

test('a full batch may go before the one ahead is answered, and is tied to it; four are under way at most', async () => {
  const database = createSilent()
  const pipeline = createOver(database)
  for (const index of count(4)) {
    expect(pipeline.takes(true)).toBe(true)
    expect(pipeline.takes(false)).toBe(index === 0)
    pipeline.post(messagesOf(index), carrier)
  }
  expect(pipeline.takes(true)).toBe(false)
  await quiet()
  const batches = database.asked('batch')
  const numbers = batches.map(({ values }) => values[1] ?? '')
  expect(batches.map(({ values }) => values[0])).toEqual(['', ...numbers.slice(0, 3)])
  batches[0]?.answer({ taken: numbers[0] })
  expect(await pipeline.settle()).toEqual({ kind: 'taken', messages: messagesOf(0) })
  expect(pipeline.takes(true)).toBe(true)
  expect(pipeline.takes(false)).toBe(false)
})

test('batches whose answers were lost are sent again as they were, stamps included, and in their order', async () => {
  const database = createSilent()
  const pipeline = createOver(database)
  for (const name of ['a', 'b', 'c']) pipeline.post(messagesOf(name, `${name}2`), carrier)
  await quiet()
  const lost = database.asked('batch').map(({ values }) => values[3])
  database.answers = database.well
  database.sessions[0]?.close()
  expect(await pipeline.settle()).toMatchObject({ kind: 'delayed', fault: { code: 'CONNECTION_CLOSED' } })
  expect(pipeline.messages).toBe(6)
  expect(pipeline.takes(true)).toBe(false)
  expect(kinds(await settleAll(pipeline))).toEqual(['taken', 'taken', 'taken'])
  expect(database.sessions[1]?.asked.map(({ values }) => values[3])).toEqual(lost)
  expect(database.committed.map((text) => text.split(':')[1])).toEqual(['a', 'a2', 'b', 'b2', 'c', 'c2'])
})

test('while no session can be made, a batch waits and is refused nothing', async () => {
  const database = createFakeDatabase()
  const session = await database.connect()
  const connected = [Promise.reject(new Error('nobody there')), Promise.resolve(session)]
  const pipeline = createPipeline(() => connected.shift() ?? Promise.resolve(session))
  pipeline.post(messagesOf('a'), carrier)
  expect(kinds(await settleAll(pipeline))).toEqual(['delayed', 'taken'])
})

test('a message that the database refuses is found by halves, and takes down neither its batch nor those behind', async () => {
  const database = createFakeDatabase((notification) => (notification.endsWith(':bad') ? '22021' : undefined))
  const pipeline = createOver(database)
  const names = count(BATCH).map((index) => (index === 333 ? 'bad' : `first ${index}`))
  pipeline.post(messagesOf(...names), carrier)
  pipeline.post(messagesOf('behind'), carrier)
  pipeline.post(messagesOf('last'), carrier)
  const settled = await settleAll(pipeline)
  const refused = settled.filter(({ kind }) => kind === 'refused')
  expect(refused).toMatchObject([{ message: messagesOf('bad')[0], fault: { code: '22021' } }])
  expect(kinds(settled)).not.toContain('delayed')
  const taken = settled.flatMap((one) => (one.kind === 'taken' ? one.messages : []))
  const others = [...names.filter((name) => name !== 'bad'), 'behind', 'last']
  expect(taken).toEqual([...messagesOf(...others)])
  expect(database.committed.map((text) => text.split(':')[1])).toEqual(others)
  // Two statements for each of nine steps, and those of the three batches.
  expect(database.asked('batch').length).toBeLessThanOrEqual(2 * 9 + 5)
})

test('a batch that finds the notification queue full is delayed, and goes in halves, of which one may fit', async () => {
  const database = createSilent()
  const pipeline = createOver(database)
  pipeline.post(messagesOf('a', 'b', 'c', 'd'), carrier)
  await quiet()
  database.asked('batch')[0]?.refuse('54000')
  expect(await pipeline.settle()).toMatchObject({ kind: 'delayed', fault: { code: '54000' } })
  database.answers = database.well
  expect(kinds(await settleAll(pipeline))).toEqual(['taken', 'taken'])
  expect(database.asked('batch').slice(1).map(namesIn)).toEqual([
    ['a', 'b'],
    ['c', 'd'],
  ])
})

test('a single message that finds the notification queue full waits for room, and is not refused', async () => {
  let isFull = true
  const database = createFakeDatabase(() => (isFull ? '54000' : undefined))
  const pipeline = createOver(database)
  pipeline.post(messagesOf('a'), carrier)
  expect((await pipeline.settle())?.kind).toBe('delayed')
  isFull = false
  expect(kinds(await settleAll(pipeline))).toEqual(['taken'])
})

test.each(['57P01', '53200', '40001', '25006'])('a batch that fails for a while (%s) is sent again whole', async (code) => {
  const database = createSilent()
  const pipeline = createOver(database)
  pipeline.post(messagesOf('a', 'b'), carrier)
  await quiet()
  database.asked('batch')[0]?.refuse(code)
  expect((await pipeline.settle())?.kind).toBe('delayed')
  database.answers = database.well
  expect(kinds(await settleAll(pipeline))).toEqual(['taken'])
  expect(database.asked('batch').map(namesIn)).toEqual([
    ['a', 'b'],
    ['a', 'b'],
  ])
})

test('a batch that the database answered without taking it is sent again', async () => {
  const database = createSilent()
  const pipeline = createOver(database)
  pipeline.post(messagesOf('a'), carrier)
  await quiet()
  database.asked('batch')[0]?.answer({ taken: '' })
  expect((await pipeline.settle())?.kind).toBe('delayed')
  database.answers = database.well
  expect(kinds(await settleAll(pipeline))).toEqual(['taken'])
})
