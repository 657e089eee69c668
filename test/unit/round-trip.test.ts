import { afterEach, beforeEach, expect, jest, test } from 'bun:test'
import { openListener } from '../../lib/broker/postgres/listener.ts'
import { createNotifier } from '../../lib/broker/postgres/notifier.ts'
import { CHECK_PREFIX, createRoundTrip, type Finding } from '../../lib/broker/postgres/round-trip.ts'
import { createLog } from '../../lib/log.ts'
import { createMetrics } from '../../lib/metrics.ts'
import { type Asked, createFakeDatabase, type FakeDatabase, quiet } from '../support/fake-database.ts'

const LIMIT = 200

beforeEach(() => void jest.useFakeTimers())
afterEach(() => void jest.useRealTimers())

/** What a test does instead of what a database does that is well. */
type Instead = { readonly [kind in Asked['kind']]?: (asked: Asked) => void }

const leftOpen = (): void => undefined

/** Both sessions, proven once, with a database that then answers differently. */
async function createProven(instead: Instead = {}) {
  const database = createFakeDatabase()
  const lines: string[] = []
  const log = createLog({ write: (line) => lines.push(line) })
  const notifier = createNotifier({ database, channel: 'carrier', isKept: () => false, log, metrics: createMetrics() })
  const roundTrip = createRoundTrip(notifier, log)
  const heard = { at: 0 }
  const listener = await openListener({
    database,
    checkChannel: roundTrip.channel,
    log,
    checked: roundTrip.arrived,
    notified: leftOpen,
  })
  const run = (): Promise<Finding> => roundTrip.run(listener, LIMIT, () => heard.at)
  expect(await run()).toEqual({ listening: 'proven', sending: 'well' })
  answerWith(database, instead)
  return { database, listener, notifier, roundTrip, run, lines, heard }
}

function answerWith(database: FakeDatabase, instead: Instead): void {
  database.answers = (asked, session) => {
    const other = instead[asked.kind]
    if (other) other(asked)
    else database.well(asked, session)
  }
}

/** What a run finds when its time has passed, and that of a look at a process behind it. */
async function found(running: Promise<Finding>): Promise<Finding | 'nothing yet'> {
  for (const _ of [1, 2]) {
    await quiet()
    jest.advanceTimersByTime(LIMIT)
  }
  return Promise.race([running, quiet().then(() => 'nothing yet' as const)])
}

const fault = (text: string) => ({ fault: expect.stringContaining(text) })

const atWork = (asked: Asked): void => asked.answer({ state: 'active', kind: 'Lock', event: 'object' })
const gone = (asked: Asked): void => asked.answer()

test('a notification that comes back, and an answer beside it, prove both sessions at once', async () => {
  const { run, roundTrip, lines } = await createProven()
  expect(await run()).toEqual({ listening: 'proven', sending: 'well' })
  expect(roundTrip.queueUsage).toBe(0.25)
  expect(jest.getTimerCount()).toBe(0)
  expect(lines).toEqual([])
})

test('each server has a channel of its own for its checks', async () => {
  const [one, other] = [await createProven(), await createProven()]
  expect(one.roundTrip.channel).toStartWith(CHECK_PREFIX)
  expect(one.roundTrip.channel).not.toBe(other.roundTrip.channel)
})

test('a notification that is blocked in the database proves nothing and breaks nothing', async () => {
  const { run, lines } = await createProven({ check: leftOpen, activity: atWork })
  expect(await found(run())).toEqual({ listening: 'unproven', sending: 'well' })
  expect(lines).toEqual(['warning: a notification is blocked in the database pid=2 waits-for=object'])
})

test.each([
  ['waits for its client', (asked: Asked) => asked.answer({ state: 'idle', kind: 'Client', event: 'ClientRead' })],
  [
    'is at work, though for its client',
    (asked: Asked) => asked.answer({ state: 'active', kind: 'Client', event: 'ClientWrite' }),
  ],
  ['has ended', gone],
  ['is not told of in time', leftOpen],
  ['is not told of for a fault', (asked: Asked) => asked.refuse('53200')],
])('a sending session without an answer whose process %s is lost, and LISTEN is well', async (_, activity) => {
  const { run } = await createProven({ check: leftOpen, activity })
  expect(await found(run())).toEqual({ listening: 'unproven', sending: 'lost' })
})

test('while there is no session to send over, it is not lost', async () => {
  const { run, database, notifier } = await createProven()
  database.connect = () => Promise.withResolvers<never>().promise
  database.sessions[1]?.close()
  await quiet()
  expect(notifier.backend).toBeUndefined()
  expect(await found(run())).toEqual({ listening: 'unproven', sending: 'well' })
})

test('a check that the database refuses to send proves nothing, and is said at once', async () => {
  const { run, lines } = await createProven({ check: (asked) => asked.refuse('42501') })
  expect(await run()).toEqual({ listening: 'unproven', sending: 'well' })
  expect(lines).toEqual(['warning: the check could not be sent reason="refused with 42501"'])
})

test('a LISTEN session that gives no answer and delivers nothing is half open', async () => {
  const { run } = await createProven({ check: gone, look: leftOpen })
  expect(await found(run())).toEqual({
    listening: fault(`no answer within ${LIMIT} ms: its connection is half open`),
    sending: 'well',
  })
})

test('where neither session gives an answer, both are lost', async () => {
  const { run } = await createProven({ check: leftOpen, look: leftOpen })
  expect(await found(run())).toEqual({ listening: fault('half open'), sending: 'lost' })
})

test('a LISTEN session that has ended is a fault, and nothing that it delivered before gives it more time', async () => {
  const { run, database, heard } = await createProven()
  database.sessions[0]?.close()
  heard.at = Number.POSITIVE_INFINITY
  expect(await found(run())).toMatchObject({ listening: fault('gave no answer') })
})

test('a server that has become a replica is named as one', async () => {
  const { run } = await createProven({
    check: (asked) => asked.refuse('25006'),
    look: (asked) => asked.answer({ replica: true, usage: 0, listens: true }),
  })
  expect(await run()).toEqual({ listening: fault('the server is a replica'), sending: 'well' })
})

test('a LISTEN that a pooler swallowed is named as such, and not sent to another server', async () => {
  const { run } = await createProven({ check: gone, look: (asked) => asked.answer({ replica: false, usage: 0, listens: false }) })
  expect(await found(run())).toEqual({ listening: fault('the LISTEN was swallowed'), sending: 'well' })
})

test('a notification that was taken but does not come back may have gone elsewhere: both sessions are made anew', async () => {
  const { run } = await createProven({ check: gone })
  expect(await found(run())).toEqual({ listening: fault(`did not come back within ${LIMIT} ms`), sending: 'lost' })
})

test('a session that delivers but takes no query, and whose process waits for one, is deaf', async () => {
  const { run, database } = await createProven({ look: leftOpen })
  expect(await found(run())).toEqual({ listening: fault('took no query'), sending: 'well' })
  // A session that takes nothing cannot be asked about itself.
  expect(database.sessions[1]?.asked.at(-1)).toMatchObject({ kind: 'activity', values: ['1', 'start of 1'] })
})

test('a session that answers LISTENs which are ahead of the query is proven', async () => {
  const { run, listener } = await createProven({ look: leftOpen })
  const running = run()
  await quiet()
  jest.advanceTimersByTime(1)
  await listener.listen('another')
  expect(await found(running)).toEqual({ listening: 'proven', sending: 'well' })
})

test.each([
  ['is at work', (asked: Asked) => asked.answer({ state: 'active', kind: null, event: null })],
  ['waits for something else', (asked: Asked) => asked.answer({ state: 'idle', kind: 'IPC', event: 'NotifyBuffer' })],
  ['has ended', gone],
  ['is not told of in time', leftOpen],
])('a session that delivers and is slow to take a query is proven where its process %s', async (_, activity) => {
  const { run } = await createProven({ look: leftOpen, activity })
  expect(await found(run())).toEqual({ listening: 'proven', sending: 'well' })
})

test('a session that works through a flood of notifications has another period for each in which some came', async () => {
  const { run, database, roundTrip, heard } = await createProven({ check: gone })
  const running = run()
  let isOver = false
  void running.then(() => {
    isOver = true
  })
  for (const _ of Array(5)) {
    await quiet()
    jest.advanceTimersByTime(LIMIT / 2)
    heard.at = performance.now()
    jest.advanceTimersByTime(LIMIT / 2)
  }
  await quiet()
  expect(isOver).toBe(false)
  database.sessions[0]?.notify(roundTrip.channel, '2')
  expect(await running).toEqual({ listening: 'proven', sending: 'well' })
})

test('notifications that arrive say nothing for a sending session that gives no answer', async () => {
  const { run, heard } = await createProven({ check: leftOpen, activity: gone })
  heard.at = Number.POSITIVE_INFINITY
  expect(await found(run())).toEqual({ listening: 'unproven', sending: 'lost' })
})

test('a process that was stopped meanwhile looks again before it judges', async () => {
  const { run, database, roundTrip } = await createProven({ check: gone })
  const running = run()
  await quiet()
  // All that was to happen meanwhile happens when it goes on.
  jest.advanceTimersByTime(60_000)
  await quiet()
  database.sessions[0]?.notify(roundTrip.channel, '2')
  expect(await running).toEqual({ listening: 'proven', sending: 'well' })
})

test('the notification of an earlier run proves nothing', async () => {
  const { run, database, roundTrip } = await createProven({ check: gone })
  const running = run()
  await quiet()
  database.sessions[0]?.notify(roundTrip.channel, '1')
  expect(await found(running)).toMatchObject({ listening: fault('did not come back') })
})
