import { afterEach, beforeEach, expect, jest, test } from 'bun:test'
import { createLiveness, type Lively } from '../../lib/channels/liveness.ts'
import { createRateLimit } from '../../lib/channels/rate.ts'

const HOUR = 3_600_000

interface Socket {
  readonly data: Lively
  ping(): void
}

/** Sockets, and a wall clock beside the monotonic one. */
function clients(pingEvery = 15_000) {
  const sockets = new Set<Socket>()
  const ended: { socket: Socket; how: string; at: number }[] = []
  let ahead = 0
  const end = (how: string) => (socket: Socket) => void ended.push({ socket, how, at: performance.now() })
  const clock = { wall: () => 1e12 + performance.now() + ahead, monotonic: () => performance.now() }
  const liveness = createLiveness({ sockets, clock, pingEvery, silent: end('silent'), expired: end('expired') })
  const open = (left = Number.POSITIVE_INFINITY): Socket => {
    const data = { grant: { expiresAt: clock.wall() + left }, silentRounds: 0, isPinged: false, expiry: undefined }
    const socket = { data, ping: () => undefined }
    sockets.add(socket)
    liveness.opened(socket)
    return socket
  }
  const close = (): void => {
    for (const socket of sockets) {
      sockets.delete(socket)
      liveness.closed(socket)
    }
  }
  closing.push(close)
  const step = (by: number): void => {
    ahead += by
  }
  return { open, close, liveness, ended, step, sockets }
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
  expect(ended.map(({ socket }) => socket)).toEqual([near, far])
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
  const socket = open()
  expect(liveness.pong(socket)).toBe(false)
  jest.advanceTimersByTime(20)
  expect(liveness.pong(socket)).toBe(true)
  expect(liveness.pong(socket)).toBe(false)
  jest.advanceTimersByTime(80)
  expect(ended[0]).toMatchObject({ socket, how: 'silent' })
})

test('frames are counted by the clock that nobody sets', () => {
  let now = 5000
  const isAbove = createRateLimit(2, () => now)
  const client = { second: 0, inSecond: 0 }
  expect([isAbove(client), isAbove(client), isAbove(client)]).toEqual([false, false, true])
  now += 1000
  expect([isAbove(client), isAbove(client), isAbove(client)]).toEqual([false, false, true])
})
