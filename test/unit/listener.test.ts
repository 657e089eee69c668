import { afterEach, expect, jest, test } from 'bun:test'
import { openListener } from '../../lib/broker/postgres/listener.ts'
import { DatabaseError } from '../../lib/database/connection.ts'
import { createLog } from '../../lib/log.ts'
import { type Asked, count, createFakeDatabase, type FakeDatabase, quiet } from '../support/fake-database.ts'

afterEach(() => void jest.useRealTimers())

/** A session that has not begun with its channels, what it delivered and what it logged. */
async function open(database: FakeDatabase) {
  const delivered: string[][] = []
  const lines: string[] = []
  const listener = await openListener({
    database,
    checkChannel: 'check',
    log: createLog({ level: 'debug', write: (line) => lines.push(line) }),
    checked: (payload) => delivered.push(['check', payload]),
    notified: (...notification) => delivered.push(notification),
  })
  return { listener, delivered, lines, notify: (channel: string, text: string) => database.sessions[0]?.notify(channel, text) }
}

/** A database that refuses every LISTEN with a channel that its encoding does not have. */
function createPicky(isRefused: (channel: string) => boolean): FakeDatabase {
  const database = createFakeDatabase()
  database.answers = (asked, session) =>
    isListen(asked) && asked.values.some(isRefused) ? asked.refuse('22P05') : database.well(asked, session)
  return database
}

const isListen = ({ kind }: Asked): boolean => kind === 'listen' || kind === 'tryListen'

/** The channels of each LISTEN behind that of the check. */
const listens = (database: FakeDatabase): (readonly string[])[] =>
  database
    .asked('listen')
    .slice(1)
    .map(({ values }) => values)

test('all channels are listened to in one call, behind a query that brings the notification queue up to date', async () => {
  const database = createFakeDatabase()
  const { listener, delivered, notify } = await open(database)
  expect(await listener.listenToAll('first', ['a', 'b', 'c'])).toEqual(new Set())
  expect(database.sessions[0]?.asked.map(({ kind }) => kind)).toEqual(['listen', 'usage', 'listen'])
  expect(listens(database)).toEqual([['first', 'a', 'b', 'c']])
  for (const channel of ['check', 'first', 'b', 'other']) notify(channel, `to ${channel}`)
  expect(delivered).toEqual([
    ['check', 'to check'],
    ['first', 'to first'],
    ['b', 'to b'],
  ])
})

test('channels that PostgreSQL refuses are found by halves and left out, and all others stand at once', async () => {
  const database = createPicky((channel) => channel === 'c 17' || channel === 'c 900')
  const { listener } = await open(database)
  const channels = count(1000).map((index) => `c ${index}`)
  expect(await listener.listenToAll('first', channels)).toEqual(new Set(['c 17', 'c 900']))
  const [all, others, ...more] = listens(database)
  expect(all).toHaveLength(1001)
  expect(others).toEqual(['first', ...channels.filter((channel) => channel !== 'c 17' && channel !== 'c 900')])
  expect(more).toEqual([])
  expect(database.asked('tryListen').length).toBeLessThanOrEqual(2 * 2 * 10)
  // One that was refused is asked for again where somebody wants it again.
  expect(await listener.listen('c 17')).toEqual({ refused: 'CHANNEL_NOT_LISTENED' })
  expect(await listener.listen('c 18')).toBeUndefined()
  expect(listens(database).slice(2)).toEqual([['c 17']])
})

test.each([
  ['out of memory', '53200'],
  ['a shutdown', '57P01'],
  ['a canceled statement', '57014'],
])('%s (%s) while many channels are listened to refuses none of them: the whole attempt fails', async (_, code) => {
  const database = createFakeDatabase()
  const { listener } = await open(database)
  database.answers = (asked, session) => (isListen(asked) ? asked.refuse(code) : database.well(asked, session))
  const channels = count(100).map(String)
  expect(await listener.listenToAll('first', channels).catch((error) => error)).toMatchObject({ code, isPassing: true })
  expect(database.asked('tryListen')).toEqual([])
})

test.each([
  ['out of memory', '53200'],
  ['a shutdown', '57P01'],
])('%s (%s) while a refused channel is sought refuses no channel', async (_, code) => {
  const database = createPicky((channel) => channel === '3')
  const picky = database.answers
  database.answers = (asked, session) =>
    asked.kind === 'tryListen' && asked.values.length === 1 ? asked.refuse(code) : picky(asked, session)
  const { listener } = await open(database)
  expect(await listener.listenToAll('first', count(8).map(String)).catch((error) => error)).toMatchObject({ code })
})

test('a session that ends while its channels are listened to refuses none of them', async () => {
  const database = createFakeDatabase()
  database.answers = (asked, session) => {
    if (asked.values.length > 1) session.close()
    else database.well(asked, session)
  }
  const { listener } = await open(database)
  expect(await listener.listenToAll('first', ['a', 'b']).catch((error) => error)).toMatchObject({ code: 'CONNECTION_CLOSED' })
  await listener.closed
})

test('a first channel that PostgreSQL refuses is a fault, not a refused channel', async () => {
  const database = createPicky((channel) => channel === 'first')
  const { listener } = await open(database)
  expect(await listener.listenToAll('first', ['a']).catch((error) => error)).toMatchObject({ code: '22P05' })
})

test('LISTEN on all channels has 10 s, and 10 s more for each thousand of them', async () => {
  jest.useFakeTimers()
  const database = createFakeDatabase()
  const { listener } = await open(database)
  database.answers = () => undefined
  const listening = listener.listenToAll('first', count(500).map(String))
  jest.advanceTimersByTime(14_999)
  expect(database.sessions[0]?.isOpen).toBe(true)
  jest.advanceTimersByTime(1)
  expect(await listening.catch((error) => error)).toMatchObject({ code: 'LISTEN_TIMEOUT', isPassing: true })
  expect(database.sessions[0]?.isOpen).toBe(false)
})

test('LISTEN that was answered leaves no timer behind', async () => {
  jest.useFakeTimers()
  const { listener } = await open(createFakeDatabase())
  await listener.listenToAll('first', ['a'])
  expect(jest.getTimerCount()).toBe(0)
})

test('a channel more is listened to once, however many ask for it', async () => {
  const database = createFakeDatabase()
  const { listener } = await open(database)
  await listener.listenToAll('first', ['a'])
  expect(await Promise.all([listener.listen('b'), listener.listen('b'), listener.listen('a')])).toEqual([
    undefined,
    undefined,
    undefined,
  ])
  expect(listens(database).slice(1)).toEqual([['b']])
})

test('a channel that is given up is listened to anew by the next who asks for it', async () => {
  const database = createFakeDatabase()
  const { listener, delivered, notify } = await open(database)
  await listener.listen('b')
  listener.unlisten('b')
  listener.unlisten('never asked for')
  notify('b', 'to nobody')
  await listener.listen('b')
  notify('b', 'to somebody')
  expect(delivered).toEqual([['b', 'to somebody']])
  expect(database.sessions[0]?.asked.slice(1).map(({ kind, values }) => [kind, ...values])).toEqual([
    ['listen', 'b'],
    ['unlisten', 'b'],
    ['listen', 'b'],
  ])
})

test('a channel that PostgreSQL refuses is refused and said, and the next who asks is told anew', async () => {
  const database = createPicky((channel) => channel === 'b')
  const { listener, lines } = await open(database)
  expect(await listener.listen('b')).toEqual({ refused: 'CHANNEL_NOT_LISTENED' })
  expect(await listener.listen('b')).toEqual({ refused: 'CHANNEL_NOT_LISTENED' })
  expect(listens(database)).toHaveLength(2)
  expect(lines[0]).toStartWith('error: cannot listen to a channel channel=b')
})

test('a refused channel that looks like a token is not shown in the log', async () => {
  const name = `eyJhbGciOiJIUzI1NiJ9.${'x'.repeat(20)}.${'y'.repeat(20)}€`
  const { listener, lines } = await open(createPicky((channel) => channel === name))
  expect(await listener.listen(name)).toEqual({ refused: 'CHANNEL_NOT_LISTENED' })
  expect(lines[0]).toStartWith('error: cannot listen to a channel channel=[token]')
})

test('LISTEN on a session that ended refuses nothing, for the next session listens to all', async () => {
  const database = createFakeDatabase()
  const { listener, lines } = await open(database)
  database.answers = () => undefined
  const underWay = listener.listen('a')
  await quiet()
  database.sessions[0]?.close()
  expect(await underWay).toBeUndefined()
  expect(await listener.listen('b')).toBeUndefined()
  listener.unlisten('b')
  await quiet()
  expect(lines).toEqual([expect.stringContaining('debug: unlisten was not answered channel=b')])
})

test('what a session that is not made met is told to whoever wants it', async () => {
  const database = createFakeDatabase()
  database.fault = new DatabaseError('no room for another session', '53300', true)
  expect(await open(database).catch((error) => error)).toBe(database.fault)
})

test('close ends the session', async () => {
  const database = createFakeDatabase()
  const { listener } = await open(database)
  listener.close()
  await listener.closed
  expect(database.sessions[0]?.isOpen).toBe(false)
})
