import { afterEach, expect, test } from 'bun:test'
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
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

test('a token ends within 1.5 s of a clock that was set past its end, however far that was', async () => {
  const { open, ended, step } = clients()
  const near = open(20_000)
  const far = open(HOUR / 2)
  open(2 * HOUR)
  open()
  step(HOUR)
  await Bun.sleep(1500)
  expect(ended.map(({ socket }) => socket)).toEqual([near, far])
})

test('a token whose end has moved away by a clock that was set back lives on, and ends once that has come', async () => {
  const { open, ended, step } = clients()
  // One timer fires before the step is seen, the other after.
  open(400)
  open(1200)
  step(-HOUR)
  await Bun.sleep(2000)
  expect(ended).toEqual([])
  step(HOUR)
  await Bun.sleep(1200)
  expect(ended.map(({ how }) => how)).toEqual(['expired', 'expired'])
})

test('an answer to a ping is one, and any other is none', async () => {
  const { open, liveness, ended } = clients(20)
  const socket = open()
  expect(liveness.pong(socket)).toBe(false)
  while (!socket.data.isPinged) await Bun.sleep(1)
  expect(liveness.pong(socket)).toBe(true)
  expect(liveness.pong(socket)).toBe(false)
  while (ended.length === 0) await Bun.sleep(5)
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
