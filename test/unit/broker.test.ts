import { afterEach, beforeEach, expect, jest, test } from 'bun:test'
import { createPostgresBroker, type PostgresOptions } from '../../lib/broker/postgres/broker.ts'
import { CHECK_PREFIX } from '../../lib/broker/postgres/round-trip.ts'
import type { Outcome } from '../../lib/channels/broker.ts'
import { DatabaseError } from '../../lib/database/connection.ts'
import { createLog } from '../../lib/log.ts'
import { createMetrics } from '../../lib/metrics.ts'
import { type Asked, count, createFakeDatabase, type FakeSession, messagesOf, pass, quiet } from '../support/fake-database.ts'

const INTERVAL = 2000
const PERIOD = INTERVAL / 2

beforeEach(() => void jest.useFakeTimers())
afterEach(() => void jest.useRealTimers())

/** A broker, and what it told its receiver in order. */
function create(given: Partial<PostgresOptions> = {}) {
  const database = createFakeDatabase()
  const told: unknown[][] = []
  const tell =
    (event: string) =>
    (...values: unknown[]): void =>
      void told.push([event, ...values])
  const outcomes: Outcome[] = []
  const lines: string[] = []
  const metrics = createMetrics()
  const broker = createPostgresBroker({
    database,
    channel: 'carrier',
    isDirect: (channel) => channel !== 'websockets-only',
    maxChannels: 3,
    journal: undefined,
    signals: new Map(),
    checkInterval: INTERVAL,
    attempts: 1,
    log: createLog({ write: (line) => lines.push(line) }),
    metrics,
    ...given,
  })
  const receiver = {
    message: tell('message'),
    missed: tell('missed'),
    historyLost: tell('historyLost'),
    lost: tell('lost'),
    restored: tell('restored'),
    ended: tell('ended'),
  }
  return {
    broker,
    database,
    told,
    outcomes,
    lines,
    metrics,
    start: () => broker.start(receiver),
    publish: (...names: readonly string[]) => broker.publish(messagesOf(...names), (outcome) => outcomes.push(outcome)),
    /** The sessions of LISTEN, in the order in which they were made. */
    listening: (): FakeSession[] => database.sessions.filter(({ asked }) => asked[0]?.kind === 'listen'),
    /** Leaves open, or answers otherwise, what is asked of one kind. */
    answer: (kind: Asked['kind'], other: (asked: Asked, session: FakeSession) => void = () => undefined) => {
      database.answers = (asked, session) => (asked.kind === kind ? other(asked, session) : database.well(asked, session))
    },
    answerWell: () => {
      database.answers = database.well
    },
  }
}

async function createListening(given: Partial<PostgresOptions> = {}) {
  const created = create(given)
  await created.start()
  return created
}

const unavailable = new DatabaseError('nobody there', 'ECONNREFUSED', false)

const isUp = (metrics: { render(): string }): boolean => metrics.render().includes('\npgws_listener_up 1\n')

test('it is ready, and started, only when a notification has come back', async () => {
  const { broker, start, answer, database, listening, metrics } = create()
  answer('check', (asked) => asked.answer())
  let isStarted = false
  const starting = start().then(() => {
    isStarted = true
  })
  await quiet()
  expect([broker.isReady, isStarted, isUp(metrics)]).toEqual([false, false, false])
  const [channel = '', payload = ''] = database.asked('check')[0]?.values ?? []
  expect(channel).toStartWith(CHECK_PREFIX)
  listening()[0]?.notify(channel, payload)
  await starting
  expect([broker.isReady, isStarted, isUp(metrics)]).toEqual([true, true, true])
})

test('a message goes to the channel that it names, and to that of all messages where it names none', async () => {
  const { broker, told, listening } = await createListening()
  await broker.follow('orders')
  const named = JSON.stringify({ channel: 'chat', payload: 1 })
  listening()[0]?.notify('carrier', named)
  listening()[0]?.notify('carrier', 'plain')
  listening()[0]?.notify('orders', named)
  expect(told).toEqual([
    ['message', 'chat', named],
    ['message', 'carrier', 'plain'],
    ['message', 'orders', named],
  ])
})

test('attempts at the start wait 1 s, 2 s and 4 s, and the last one tells what it met', async () => {
  const { start, database, lines } = create({ attempts: 4 })
  database.fault = unavailable
  const began = performance.now()
  let met: unknown
  void start().catch((error) => {
    met = error
  })
  await pass(6990)
  expect([lines.length, met]).toEqual([3, undefined])
  await pass(20)
  expect(met).toBe(unavailable)
  expect(performance.now() - began).toBeLessThan(7100)
  expect(lines.map((line) => /next-in=(\S+)/.exec(line)?.[1])).toEqual(['1s', '2s', '4s'])
})

test('an attempt that fails after its session stood leaves no session behind, and the next one starts', async () => {
  const { broker, start, answer, answerWell, listening } = create({ attempts: 2 })
  answer('check', (asked) => asked.refuse('25006'))
  const starting = start()
  await pass(100)
  expect(listening().map(({ isOpen }) => isOpen)).toEqual([false])
  answerWell()
  await pass(1000)
  await starting
  expect(broker.isReady).toBe(true)
  expect(listening().map(({ isOpen }) => isOpen)).toEqual([false, true])
  broker.stop()
})

test('without a notification that can be sent, LISTEN is not taken for proven at the start', async () => {
  const { start, answer, listening } = create()
  answer('check', (asked) => asked.refuse('42501'))
  expect(await start().catch((error) => error)).toMatchObject({
    message: expect.stringContaining('no notification could be sent'),
  })
  expect(listening().map(({ isOpen }) => isOpen)).toEqual([false])
})

test('a stop during the start ends it without a fault, at a wait or at an attempt', async () => {
  const waiting = create({ attempts: 5 })
  waiting.database.fault = unavailable
  let isOver = false
  void waiting.start().then(() => {
    isOver = true
  })
  await quiet()
  waiting.broker.stop()
  await quiet()
  expect(isOver).toBe(true)
  expect(waiting.lines).toHaveLength(1)
  const connecting = create()
  const starting = connecting.start()
  connecting.broker.stop()
  await starting
  expect(connecting.database.sessions.map(({ isOpen }) => isOpen)).toEqual([false])
  expect(jest.getTimerCount()).toBe(0)
})

test('a session that ends is replaced at once, and readers are told of the gap ahead of the first message behind it', async () => {
  const { broker, told, listening, answer, metrics } = await createListening()
  await broker.follow('orders')
  await pass(3 * PERIOD + 500)
  // When the third check set out.
  const provenAt = Date.now() - 500
  answer('check', (asked) => asked.answer())
  listening()[0]?.close()
  await quiet()
  expect([broker.isReady, isUp(metrics)]).toEqual([false, false])
  await pass(100)
  const [, second] = listening()
  expect(second?.asked.filter(({ kind }) => kind === 'listen').map(({ values }) => values.slice(-2))).toEqual([
    [expect.stringMatching(CHECK_PREFIX)],
    ['carrier', 'orders'],
  ])
  expect(told).toEqual([])
  second?.notify('orders', 'first')
  second?.notify('orders', 'second')
  const arrivedAt = Date.now()
  expect(told).toEqual([
    ['missed', expect.any(Number), arrivedAt],
    ['message', 'orders', 'first'],
    ['message', 'orders', 'second'],
  ])
  expect(Math.abs(Number(told[0]?.[1]) - provenAt)).toBeLessThanOrEqual(30)
  broker.stop()
})

test('where no message comes first, the check tells of the gap, and messages flow again', async () => {
  const { broker, told, listening, lines, metrics } = await createListening()
  const startedAt = Date.now()
  await pass(100)
  listening()[0]?.close()
  await pass(100)
  expect(told).toEqual([
    ['missed', startedAt, expect.any(Number)],
    ['restored', startedAt, expect.any(Number)],
  ])
  expect([broker.isReady, isUp(metrics)]).toEqual([true, true])
  expect(metrics.render()).toContain('\npgws_listener_reconnections_total 1\n')
  expect(lines.filter((line) => line.startsWith('info: listening again'))).toHaveLength(1)
  broker.stop()
})

test('while LISTEN is away messages are accepted and held back, attempts go on, and all go once it is back', async () => {
  const { broker, database, publish, outcomes, listening, lines } = await createListening()
  database.fault = unavailable
  listening()[0]?.close()
  await pass(100)
  expect(publish('a', 'b')).toBe(true)
  await pass(20_000)
  expect(database.asked('batch')).toEqual([])
  expect(outcomes).toEqual([])
  const attempts = lines.filter((line) => line.startsWith('warning: cannot listen')).length
  expect(attempts).toBeGreaterThan(6)
  database.fault = undefined
  await pass(3000)
  expect(outcomes).toEqual(['committed', 'committed'])
  broker.stop()
})

test('an attempt that delivers something and then fails leaves a gap, of which readers are told again', async () => {
  const { broker, told, listening, answer, answerWell } = await createListening()
  const startedAt = Date.now()
  await pass(100)
  answer('check')
  listening()[0]?.close()
  await pass(100)
  listening()[1]?.notify('carrier', 'between')
  answer('check', (asked) => asked.refuse('25006'))
  listening()[1]?.close()
  await pass(2000)
  const gap = ['missed', startedAt, expect.any(Number)]
  expect(told).toEqual([gap, ['message', 'carrier', 'between']])
  answerWell()
  await pass(3000)
  expect(told.slice(2)).toEqual([gap, ['restored', startedAt, expect.any(Number)]])
  expect(listening().filter(({ isOpen }) => isOpen)).toHaveLength(1)
  broker.stop()
})

test('what was missed begins where the last check that came back set out, however late that came back', async () => {
  const { broker, told, listening, database, answer, answerWell } = await createListening()
  answer('check', (asked) => asked.answer())
  while (database.asked('check').length < 2) await pass(10)
  const setOutAt = Date.now()
  await pass(500)
  const [channel = '', payload = ''] = database.asked('check')[1]?.values ?? []
  listening()[0]?.notify(channel, payload)
  answerWell()
  await pass(100)
  listening()[0]?.close()
  await pass(100)
  expect(Math.abs(Number(told[0]?.[1]) - setOutAt)).toBeLessThanOrEqual(10)
  broker.stop()
})

test('a half-open session is found within the interval, dropped and replaced', async () => {
  const { broker, database, listening, lines } = await createListening()
  const [halfOpen] = listening()
  database.answers = (asked, session) => {
    if (asked.kind === 'check' && halfOpen?.isOpen) asked.answer()
    else if (session !== halfOpen) database.well(asked, session)
  }
  await pass(INTERVAL - 20)
  expect(lines).toHaveLength(1)
  await pass(40)
  expect(lines[1]).toContain('error: listener lost cause="the LISTEN session gave no answer')
  expect(halfOpen?.isOpen).toBe(false)
  await pass(100)
  expect([broker.isReady, listening().length]).toEqual([true, 2])
  broker.stop()
})

test('a check that cannot be sent makes it unready, without taking LISTEN for lost', async () => {
  const { broker, answer, answerWell, listening, told } = await createListening()
  answer('check', (asked) => asked.refuse('42501'))
  await pass(PERIOD + 20)
  expect([broker.isReady, listening()[0]?.isOpen]).toEqual([false, true])
  answerWell()
  await pass(PERIOD)
  expect([broker.isReady, listening().length]).toEqual([true, 1])
  expect(told).toEqual([])
  broker.stop()
})

test('a sending session that is lost is made anew, and LISTEN stays', async () => {
  const { broker, answer, answerWell, database, listening } = await createListening()
  answer('check')
  await pass(2 * PERIOD)
  answerWell()
  await pass(2 * PERIOD)
  expect(database.asked('terminate')).toHaveLength(1)
  expect([broker.isReady, listening().length]).toEqual([true, 1])
  broker.stop()
})

test('without an interval a lost LISTEN is the end: its receiver is told, and nothing is healed', async () => {
  const { broker, database, told, listening, publish } = await createListening({ checkInterval: 0 })
  listening()[0]?.close()
  await pass(10_000)
  expect(told).toEqual([['ended']])
  expect([broker.isReady, listening().length]).toEqual([false, 1])
  publish('a')
  await quiet()
  expect(database.asked('batch')).toEqual([])
  expect(broker.stop()).toBe(1)
})

test('without an interval it still checks, every 10 s', async () => {
  const { broker, database } = await createListening({ checkInterval: 0 })
  await pass(9980)
  expect(database.asked('check')).toHaveLength(1)
  await pass(40)
  expect(database.asked('check')).toHaveLength(2)
  broker.stop()
})

test('a flush sends what was held back while LISTEN is away, and its healing ends', async () => {
  const { broker, database, publish, outcomes, listening } = await createListening()
  const { connectListening } = database
  database.connectListening = () => Promise.reject(unavailable)
  listening()[0]?.close()
  await pass(100)
  publish('a', 'b')
  await pass(100)
  expect(outcomes).toEqual([])
  const flushed = broker.flush()
  await pass(100)
  expect(outcomes).toEqual(['committed', 'committed'])
  await flushed
  database.connectListening = connectListening
  await pass(5000)
  expect(listening()).toHaveLength(1)
  expect(broker.stop()).toBe(0)
})

test('the loss of LISTEN while it is flushed holds nothing back', async () => {
  const { broker, database, publish, outcomes, listening, answer, answerWell, told } = await createListening()
  answer('batch')
  publish('a', 'b')
  await quiet()
  const flushed = broker.flush()
  database.connectListening = () => Promise.reject(unavailable)
  listening()[0]?.close()
  await pass(100)
  publish('c')
  answerWell()
  for (const batch of database.asked('batch')) database.well(batch, database.sessions[1] ?? expect.unreachable())
  await pass(100)
  expect(outcomes).toEqual(['committed', 'committed', 'committed'])
  await flushed
  expect(told.map(([event]) => event)).not.toContain('ended')
})

test('a stop closes both sessions and leaves no timer', async () => {
  const { broker, database } = await createListening()
  expect(broker.stop()).toBe(0)
  await quiet()
  expect(database.sessions.map(({ isOpen }) => isOpen)).toEqual([false, false])
  expect(jest.getTimerCount()).toBe(0)
  expect(broker.isReady).toBe(false)
})

test('a stop ends a healing under way, and says how many messages it leaves', async () => {
  const { broker, database, publish, listening, lines } = await createListening()
  database.fault = unavailable
  listening()[0]?.close()
  await pass(1000)
  publish('a', 'b')
  expect(broker.stop()).toBe(2)
  await quiet()
  const said = lines.length
  expect(jest.getTimerCount()).toBe(0)
  database.fault = undefined
  await pass(5000)
  expect(lines).toHaveLength(said)
  expect(database.sessions.filter(({ isOpen }) => isOpen)).toEqual([])
  expect(publish('c')).toBe(false)
})

test.each([
  ['that of all messages', 'carrier'],
  ['one that is not delivered directly', 'websockets-only'],
  ['none', ''],
  ['one with NUL', 'a\0b'],
  ['one longer than a name of PostgreSQL', 'x'.repeat(64)],
  ['one of 64 bytes in fewer characters', '☃'.repeat(22)],
  ['that of a check', `${CHECK_PREFIX}1`],
])('%s is no channel to follow', async (_, channel) => {
  const { broker, database } = await createListening()
  const before = database.asked('listen').length
  expect(broker.follow(channel)).toBeUndefined()
  broker.unfollow(channel)
  await quiet()
  expect(database.asked('listen', 'unlisten')).toHaveLength(before)
})

test('so many channels are followed as the limit allows, and one that is given up makes room', async () => {
  const { broker, database } = await createListening()
  expect(await Promise.all(['a', 'b', 'c'].map(broker.follow))).toEqual([undefined, undefined, undefined])
  expect(await broker.follow('d')).toEqual({ refused: 'TOO_MANY_CHANNELS' })
  broker.unfollow('b')
  expect(await broker.follow('d')).toBeUndefined()
  expect(database.asked('unlisten').map(({ values }) => values)).toEqual([['b']])
})

test('a channel that PostgreSQL refuses is not followed and takes no place', async () => {
  const { broker, answer, answerWell, listening } = await createListening()
  answer('listen', (asked) => asked.refuse('22P05'))
  for (const name of count(5).map(String)) expect(await broker.follow(name)).toEqual({ refused: 'CHANNEL_NOT_LISTENED' })
  answerWell()
  listening()[0]?.close()
  await pass(100)
  expect(listening()[1]?.asked.find(({ values }) => values[0] === 'carrier')?.values).toEqual(['carrier'])
  broker.stop()
})

test('a channel that is given up and wanted anew is followed, whatever becomes of its first LISTEN', async () => {
  const { broker, database, answer, answerWell, listening, told } = await createListening()
  answer('listen')
  const first = broker.follow('a')
  await quiet()
  broker.unfollow('a')
  const second = broker.follow('a')
  await quiet()
  const [one, other] = database.asked('listen').slice(-2)
  one?.refuse('53200')
  await first
  other?.answer()
  expect(await second).toBeUndefined()
  listening()[0]?.notify('a', 'text')
  expect(told).toEqual([['message', 'a', 'text']])
  answerWell()
  listening()[0]?.close()
  await pass(100)
  expect(listening()[1]?.asked.find(({ values }) => values[0] === 'carrier')?.values).toEqual(['carrier', 'a'])
  broker.unfollow('a')
  expect(database.asked('unlisten')).toHaveLength(2)
  broker.stop()
})

test('a channel that is wanted while LISTEN is away is followed by the next session, and one given up is not', async () => {
  const { broker, database, listening } = await createListening()
  await broker.follow('a')
  database.fault = unavailable
  listening()[0]?.close()
  await pass(100)
  expect(await broker.follow('b')).toBeUndefined()
  broker.unfollow('a')
  database.fault = undefined
  await pass(3000)
  expect(listening()[1]?.asked.find(({ values }) => values[0] === 'carrier')?.values).toEqual(['carrier', 'b'])
  broker.stop()
})

test('a followed channel that the next session is refused is lost, and the others stand', async () => {
  const { broker, database, listening, told } = await createListening()
  for (const name of ['a', 'b', 'c']) await broker.follow(name)
  database.answers = (asked, session) =>
    asked.kind.endsWith('isten') && asked.values.includes('b') ? asked.refuse('22P05') : database.well(asked, session)
  listening()[0]?.close()
  await pass(100)
  expect(told.filter(([event]) => event === 'lost')).toEqual([['lost', 'b']])
  expect(broker.isReady).toBe(true)
  listening()[1]?.notify('c', 'text')
  expect(told.at(-1)).toEqual(['message', 'c', 'text'])
  expect(await broker.follow('d')).toBeUndefined()
  broker.stop()
})

test('a passing fault of the next session loses no followed channel', async () => {
  const { broker, answer, answerWell, listening, told } = await createListening()
  for (const name of ['a', 'b', 'c']) await broker.follow(name)
  answer('listen', (asked, session) => {
    if (asked.values.length > 1) asked.refuse('53200')
    else session.asked.length === 1 ? asked.answer() : asked.refuse('53200')
  })
  listening()[0]?.close()
  await pass(1000)
  answerWell()
  await pass(3000)
  expect(broker.isReady).toBe(true)
  expect(told.map(([event]) => event)).toEqual(['missed', 'restored'])
  expect(
    listening()
      .at(-1)
      ?.asked.find(({ values }) => values[0] === 'carrier')?.values,
  ).toEqual(['carrier', 'a', 'b', 'c'])
  broker.stop()
})

test('a signal is heard when it is given and whenever LISTEN stands anew, and is no message', async () => {
  let heard = 0
  const signals = new Map([['decide_again', () => void heard++]])
  const { broker, listening, told } = await createListening({ signals })
  expect([heard, listening()[0]?.asked.find(({ values }) => values[0] === 'carrier')?.values]).toEqual([
    1,
    ['carrier', 'decide_again'],
  ])
  listening()[0]?.notify('decide_again', '')
  expect(heard).toBe(2)
  expect(broker.follow('decide_again')).toBeUndefined()
  listening()[0]?.close()
  await pass(100)
  expect([heard, told.filter(([event]) => event === 'message')]).toEqual([3, []])
  broker.stop()
})
