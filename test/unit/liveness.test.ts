import { afterEach, beforeEach, expect, jest, test } from 'bun:test'
import { createLiveness, type Lively } from '../../lib/channels/liveness.ts'
import { createRateLimit } from '../../lib/channels/rate.ts'

const HOUR = 3_600_000

/** Clients, and a wall clock beside the monotonic one. */
function clients(pingEvery = 15_000, isWarned = false) {
  const sessions = new Set<Lively>()
  const ended: { session: Lively; how: string; at: number }[] = []
  let ahead = 0
  const end = (how: string) => (session: Lively) => void ended.push({ session, how, at: performance.now() })
  const clock = { wall: () => 1e12 + performance.now() + ahead, monotonic: () => performance.now() }
  const liveness = createLiveness({
    sessions,
    clock,
    pingEvery,
    isWarned: () => isWarned,
    expiring: end('expiring'),
    silent: end('silent'),
    expired: end('expired'),
  })
  const open = (left = Number.POSITIVE_INFINITY, answers = true): Lively => {
    const session = {
      client: { ping: () => answers },
      grant: { expiresAt: clock.wall() + left },
      silentRounds: 0,
      isPinged: false,
      warnAt: Number.POSITIVE_INFINITY,
      expiry: undefined,
    }
    sessions.add(session)
    liveness.opened(session)
    return session
  }
  const close = (): void => {
    for (const session of sessions) {
      sessions.delete(session)
      liveness.closed(session)
    }
  }
  closing.push(close)
  const step = (by: number): void => {
    ahead += by
  }
  return { open, close, liveness, ended, step }
}

const closing: (() => void)[] = []
beforeEach(() => void jest.useFakeTimers())
afterEach(() => {
  for (const close of closing.splice(0)) close()
  jest.useRealTimers()
})

test('a token ends within 1.5 s of a clock that was set past its end, however far that was', () => {
  const { open, ended, step } = clients()
  const near = open(20_000)
  const far = open(HOUR / 2)
  open(2 * HOUR)
  open()
  step(HOUR)
  jest.advanceTimersByTime(1500)
  expect(ended.map(({ session }) => session)).toEqual([near, far])
})

test('a token whose end has moved away by a clock that was set back lives on, and ends once that has come', () => {
  const { open, ended, step } = clients()
  // One timer fires before the step is seen, the other after.
  open(400)
  open(1200)
  step(-HOUR)
  jest.advanceTimersByTime(2000)
  expect(ended).toEqual([])
  step(HOUR)
  jest.advanceTimersByTime(1200)
  expect(ended.map(({ how }) => how)).toEqual(['expired', 'expired'])
})

test('a pong answers a ping once, and a pong without a ping answers none', () => {
  const { open, liveness, ended } = clients(20)
  const session = open()
  expect(liveness.pong(session)).toBe(false)
  jest.advanceTimersByTime(20)
  expect(liveness.pong(session)).toBe(true)
  expect(liveness.pong(session)).toBe(false)
  jest.advanceTimersByTime(80)
  expect(ended[0]).toMatchObject({ session, how: 'silent' })
})

test('a client of whom no answer is to be expected is never silent', () => {
  const { open, ended } = clients(20)
  open(Number.POSITIVE_INFINITY, false)
  jest.advanceTimersByTime(200)
  expect(ended).toEqual([])
})

test('who is told hears of the end of its token 30 s ahead, or halfway where less is left, and once', () => {
  const { open, ended } = clients(15_000, true)
  const began = performance.now()
  const far = open(100_000, false)
  const near = open(8000, false)
  open(Number.POSITIVE_INFINITY, false)
  jest.advanceTimersByTime(200_000)
  const warnings = ended.filter(({ how }) => how === 'expiring')
  expect(warnings.map(({ session, at }) => ({ session, at: Math.round((at - began) / 10) * 10 }))).toEqual([
    { session: near, at: 4000 },
    { session: far, at: 70_000 },
  ])
})

test('under another token the times of that one count, and those of the one before no more', () => {
  const { open, ended, liveness } = clients(15_000, true)
  const session = open(20_000, false)
  jest.advanceTimersByTime(12_000)
  const earlier = session.grant
  Object.assign(session, { grant: { expiresAt: earlier.expiresAt + HOUR } })
  liveness.renewed(session, earlier)
  expect(ended.splice(0).map(({ how }) => how)).toEqual(['expiring'])
  jest.advanceTimersByTime(HOUR - 30_000)
  expect(ended).toEqual([])
  jest.advanceTimersByTime(39_000)
  expect(ended.map(({ how }) => how)).toEqual(['expiring', 'expired'])
})

test('another token may end sooner than the one before', () => {
  const { open, ended, liveness } = clients(15_000, true)
  const session = open(20_000, false)
  const earlier = session.grant
  Object.assign(session, { grant: { expiresAt: earlier.expiresAt - 16_000 } })
  liveness.renewed(session, earlier)
  jest.advanceTimersByTime(4000)
  expect(ended.map(({ how }) => how)).toEqual(['expiring', 'expired'])
})

test('frames are counted by the clock that nobody sets', () => {
  let now = 5000
  const isAbove = createRateLimit(2, () => now)
  const client = { second: 0, inSecond: 0 }
  expect([isAbove(client), isAbove(client), isAbove(client)]).toEqual([false, false, true])
  now += 1000
  expect([isAbove(client), isAbove(client), isAbove(client)]).toEqual([false, false, true])
})
