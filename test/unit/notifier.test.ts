import { afterEach, expect, jest, test } from 'bun:test'
import { createNotifier } from '../../lib/broker/postgres/notifier.ts'
import { BATCH } from '../../lib/broker/postgres/pipeline.ts'
import type { Outcome } from '../../lib/channels/broker.ts'
import { DatabaseError } from '../../lib/database/connection.ts'
import { createLog } from '../../lib/log.ts'
import { createMetrics } from '../../lib/metrics.ts'
import { count, createFakeDatabase, type FakeDatabase, messagesOf, namesIn, quiet } from '../support/fake-database.ts'

afterEach(() => void jest.useRealTimers())

type Settled = readonly [name: string | number, outcome: Outcome]

/** A notifier, what it settled in order, and what it logged. */
function createOver(database: FakeDatabase) {
  const settled: Settled[] = []
  const lines: string[] = []
  const metrics = createMetrics()
  const log = createLog({ write: (line) => lines.push(line) })
  const notifier = createNotifier({ database, channel: 'carrier', isKept: (channel) => channel === 'kept', log, metrics })
  const send = (...names: readonly (string | number)[]): boolean[] =>
    names.map((name) => notifier.send(messagesOf(name), (outcome) => settled.push([name, outcome])))
  const gauge = (name: string): number => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(metrics.render())?.[1])
  return { notifier, send, settled, lines, gauge }
}

/** A notifier with a session that has settled one message, whose database answers no batch from then on. */
async function createFlowing(database = createFakeDatabase()) {
  const over = createOver(database)
  over.send('ahead')
  await over.notifier.drained()
  over.settled.length = 0
  database.answers = (asked, session) => (asked.kind === 'batch' ? undefined : database.well(asked, session))
  /** The batches behind that of the first message. */
  const batches = () => database.asked('batch').slice(1)
  return { ...over, database, batches }
}

const committed = (...names: readonly (string | number)[]): Settled[] => names.map((name) => [name, 'committed'])

const ASK = 'select pg_notify($1, $2)'

test('the first message leaves at once, and what comes while it is under way is the next batch', async () => {
  const { send, settled, batches, notifier } = await createFlowing()
  expect(send('a', 'b', 'c')).toEqual([true, true, true])
  await quiet()
  expect(batches().map(namesIn)).toEqual([['a']])
  expect(settled).toEqual([])
  batches()[0]?.answer({ taken: batches()[0]?.values[1] })
  await quiet()
  expect(batches().map(namesIn)).toEqual([['a'], ['b', 'c']])
  expect(settled).toEqual(committed('a'))
  notifier.stop()
})

test('full batches follow each other before their answers, and what is less than one waits for them', async () => {
  const { send, settled, batches, database, notifier } = await createFlowing()
  send('first', ...count(2 * BATCH + 10))
  await quiet()
  expect(batches().map((batch) => namesIn(batch).length)).toEqual([1])
  send('last')
  batches()[0]?.answer({ taken: batches()[0]?.values[1] })
  await quiet()
  expect(batches().map((batch) => namesIn(batch).length)).toEqual([1, BATCH, BATCH])
  database.answers = database.well
  for (const batch of batches().slice(1)) database.well(batch, database.sessions[0] ?? expect.unreachable())
  await notifier.drained()
  expect(batches().map((batch) => namesIn(batch).length)).toEqual([1, BATCH, BATCH, 11])
  expect(settled).toEqual(committed('first', ...count(2 * BATCH + 10), 'last'))
})

test('however many messages wait, they make one session', async () => {
  const database = createFakeDatabase()
  const { notifier, settled } = createOver(database)
  notifier.send(messagesOf(...count(3 * BATCH)), (outcome) => settled.push(['any', outcome]))
  await notifier.drained()
  expect(settled).toHaveLength(3 * BATCH)
  expect(database.sessions).toHaveLength(1)
})

test('each message is settled once, with the reason where the database refuses it', async () => {
  const refusals = new Map([
    ['bad', '22021'],
    ['worse', '22P05'],
  ])
  const database = createFakeDatabase((notification) => refusals.get(notification.split(':')[1] ?? ''))
  const { notifier, send, settled, lines } = createOver(database)
  const names = count(40).map((index) => (index === 7 ? 'bad' : index === 31 ? 'worse' : index))
  send('first', ...names)
  await notifier.drained()
  const outcomes = names.map((name): Settled => {
    const code = refusals.get(String(name))
    return [name, code ? { code, reason: `refused with ${code}` } : 'committed']
  })
  expect(settled).toEqual([['first', 'committed'], ...outcomes])
  expect(lines.filter((line) => line.startsWith('warning: message refused by the database'))).toHaveLength(2)
})

test('a full queue takes a group of messages whole or not at all, and has room again for what was sent', async () => {
  const { notifier, send, settled, gauge } = createOver(createFakeDatabase())
  const large = { channel: 'chat', head: 'head:'.padEnd(2 ** 10), tail: ':large'.padEnd(2 ** 20 - 2 ** 10 - 200, '-'), bytes: 0 }
  const sendLarge = (times: number): boolean =>
    notifier.send(
      count(times).map(() => large),
      (outcome) => settled.push(['large', outcome]),
    )
  notifier.pause()
  expect(sendLarge(63)).toBe(true)
  expect(sendLarge(2)).toBe(false)
  expect(gauge('pgws_send_queue_messages')).toBe(63)
  expect(sendLarge(1)).toBe(true)
  expect(send('small')).toEqual([false])
  expect(gauge('pgws_send_queue_bytes')).toBe(64 * 2 ** 20)
  expect(settled).toEqual([])
  notifier.resume()
  await notifier.drained()
  expect(settled).toHaveLength(64)
  expect(gauge('pgws_send_queue_bytes')).toBe(0)
  expect(send('small')).toEqual([true])
  notifier.stop()
})

test('with the notification queue of the database full, messages wait, and all go in order when it has room', async () => {
  jest.useFakeTimers()
  let isFull = true
  const database = createFakeDatabase(() => (isFull ? '54000' : undefined))
  const { send, settled, lines } = createOver(database)
  send(...count(10))
  for (const _ of count(8)) {
    await quiet()
    jest.advanceTimersByTime(3000)
  }
  expect(settled).toEqual([])
  expect(lines).toEqual([expect.stringContaining('warning: cannot send to the database')])
  isFull = false
  await quiet()
  jest.advanceTimersByTime(3000)
  await quiet()
  expect(settled).toEqual(committed(...count(10)))
  expect(lines).toEqual([expect.anything(), 'info: sending to the database again waiting=9'])
})

test('a session that ends loses nothing: what had no answer is sent again ahead of the rest', async () => {
  const { send, settled, batches, database, notifier } = await createFlowing()
  send('a', 'b')
  await quiet()
  database.answers = database.well
  database.sessions[0]?.close()
  await notifier.drained()
  expect(settled).toEqual(committed('a', 'b'))
  expect(batches().map(namesIn)).toEqual([['a'], ['a'], ['b']])
  expect(batches()[1]?.values[3]).toBe(batches()[0]?.values[3] ?? '')
})

test('while no session can be made attempts go on, each message is kept, and it is said once', async () => {
  jest.useFakeTimers()
  const database = createFakeDatabase()
  database.fault = new DatabaseError('the password is wrong', '28P01', true)
  const { send, settled, lines, notifier } = createOver(database)
  send('a', 'b')
  for (const _ of count(5)) {
    await quiet()
    jest.advanceTimersByTime(3000)
  }
  expect(settled).toEqual([])
  expect(notifier.backend).toBeUndefined()
  expect(lines).toEqual(['warning: cannot send to the database reason="the password is wrong" code=28P01'])
  database.fault = undefined
  await quiet()
  jest.advanceTimersByTime(3000)
  await quiet()
  expect(settled).toEqual(committed('a', 'b'))
})

test('a question goes ahead of what waits in the queue', async () => {
  const { notifier, send, batches, database } = await createFlowing()
  send('a', 'b')
  await quiet()
  const answer = notifier.ask(ASK, ['check', '1'])
  batches()[0]?.answer({ taken: batches()[0]?.values[1] })
  expect(await answer).toEqual([])
  await quiet()
  expect(database.asked('batch', 'check').map(({ kind }) => kind)).toEqual(['batch', 'batch', 'check', 'batch'])
  notifier.stop()
})

test('a question that the database refuses is told so, and the queue goes on', async () => {
  const { notifier, send, settled, database } = await createFlowing()
  database.answers = (asked, session) => (asked.kind === 'check' ? asked.refuse('42501') : database.well(asked, session))
  const answer = notifier.ask(ASK, ['check', '1'])
  send('a')
  expect(await answer.catch((error) => error)).toMatchObject({ code: '42501' })
  await notifier.drained()
  expect(settled).toEqual(committed('a'))
})

test('a question cuts the wait between two attempts short, and fails with what they meet', async () => {
  jest.useFakeTimers()
  const database = createFakeDatabase()
  database.fault = new DatabaseError('nobody there', 'ECONNREFUSED', false)
  const { notifier, send, settled } = createOver(database)
  send('a')
  for (const _ of count(3)) {
    await quiet()
    jest.advanceTimersToNextTimer()
  }
  await quiet()
  let met: unknown
  void notifier.ask(ASK, ['check', '1']).catch((error) => {
    met = error
  })
  await quiet()
  expect(met).toMatchObject({ code: 'ECONNREFUSED' })
  database.fault = undefined
  await notifier.ask(ASK, ['check', '2'])
  await notifier.drained()
  expect(settled).toEqual(committed('a'))
})

test('while it is paused messages wait and questions do not; then all go, in order', async () => {
  const database = createFakeDatabase()
  const { notifier, send, settled } = createOver(database)
  notifier.pause()
  send('a', 'b')
  await notifier.ask(ASK, ['check', '1'])
  await quiet()
  expect(database.asked('batch')).toEqual([])
  notifier.resume()
  await notifier.drained()
  expect(settled).toEqual(committed('a', 'b'))
})

test('a batch that is under way when it is paused is settled, and one that fails then waits', async () => {
  const { notifier, send, settled, database, batches } = await createFlowing()
  send('a', 'b')
  await quiet()
  notifier.pause()
  batches()[0]?.answer({ taken: batches()[0]?.values[1] })
  await quiet()
  expect(settled).toEqual(committed('a'))
  notifier.resume()
  await quiet()
  notifier.pause()
  batches()[1]?.refuse('57P01')
  await quiet()
  database.answers = database.well
  await notifier.ask(ASK, ['check', '1'])
  await quiet()
  expect(batches()).toHaveLength(2)
  notifier.resume()
  await notifier.drained()
  expect(settled).toEqual(committed('a', 'b'))
})

test('a session that is given up has its process ended before what had no answer is sent over another', async () => {
  const { notifier, send, settled, database } = await createFlowing()
  const [first] = database.sessions
  send('a')
  await quiet()
  expect(notifier.backend).toEqual(first?.server.backend)
  database.answers = database.well
  notifier.reconnect()
  await notifier.drained()
  const [, second, ...more] = database.sessions
  expect(more).toEqual([])
  expect(first?.isOpen).toBe(false)
  expect(second?.asked.map(({ kind }) => kind)).toEqual(['terminate', 'batch'])
  expect(second?.asked[0]?.values).toEqual(['1', 'start of 1'])
  expect(settled).toEqual(committed('a'))
  second?.close()
  send('b')
  await notifier.drained()
  expect(database.sessions[2]?.asked.map(({ kind }) => kind)).toEqual(['batch'])
})

test('a session that cannot end the abandoned process is closed, and the next one tries again', async () => {
  jest.useFakeTimers()
  const { notifier, send, settled, database } = await createFlowing()
  send('a')
  await quiet()
  database.answers = (asked, session) =>
    asked.kind === 'terminate' && session === database.sessions[1] ? asked.refuse('53200') : database.well(asked, session)
  notifier.reconnect()
  for (const _ of count(3)) {
    await quiet()
    jest.advanceTimersByTime(3000)
  }
  await quiet()
  const [, second, third] = database.sessions
  expect([second?.isOpen, third?.isOpen]).toEqual([false, true])
  expect(third?.asked.map(({ kind }) => kind)).toEqual(['terminate', 'batch'])
  expect(settled).toEqual(committed('a'))
})

test('an answer to anything counts as an answer, by the clock that nobody sets', async () => {
  jest.useFakeTimers()
  const { notifier, send, database } = await createFlowing()
  database.answers = database.well
  const times: number[] = []
  for (const act of [() => send('a'), () => notifier.ask(ASK, ['check', '1'])]) {
    jest.advanceTimersByTime(1000)
    await act()
    await quiet()
    times.push(performance.now() - notifier.answeredAt)
  }
  expect(times).toEqual([0, 0])
})

test('when it stops it says how many messages it leaves, fails its questions, and sends and takes nothing more', async () => {
  const { notifier, send, settled, database, batches } = await createFlowing()
  send('a', 'b', 'c')
  await quiet()
  const failure = notifier.ask(ASK, ['check', '1']).catch((error) => error)
  expect(notifier.stop()).toBe(3)
  expect(await failure).toMatchObject({ code: 'STOPPED' })
  await quiet()
  expect(database.sessions.map(({ isOpen }) => isOpen)).toEqual([false])
  expect(send('d')).toEqual([false])
  expect(batches()).toHaveLength(1)
  expect(settled).toEqual([])
})

test('a session that comes to stand after the stop is closed', async () => {
  const database = createFakeDatabase()
  const { notifier, send } = createOver(database)
  send('a')
  expect(notifier.stop()).toBe(1)
  await quiet()
  expect(database.sessions.map(({ isOpen }) => isOpen)).toEqual([false])
})
