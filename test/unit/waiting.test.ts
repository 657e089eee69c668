import { afterEach, expect, jest, spyOn, test } from 'bun:test'
import { createBackoff } from '../../lib/waiting.ts'

afterEach(() => {
  jest.useRealTimers()
  jest.restoreAllMocks()
})

/** The milliseconds of some waits, one after the other. */
async function waits(backoff: ReturnType<typeof createBackoff>, count: number): Promise<number[]> {
  const delays: number[] = []
  const timer = spyOn(globalThis, 'setTimeout')
  for (let index = 0; index < count; index++) {
    const over = backoff.wait()
    delays.push(Number(timer.mock.lastCall?.[1]))
    backoff.cut()
    await over
  }
  timer.mockRestore()
  return delays
}

test('the first attempt comes at once, and the waits grow to less than 5 s', async () => {
  jest.useFakeTimers()
  const backoff = createBackoff()
  const [first = 0, second = 0, third = 0, ...later] = await waits(backoff, 20)
  expect(first).toBe(0)
  expect(second).toBeGreaterThan(0)
  expect(third).toBeGreaterThanOrEqual(second)
  const longest = Math.max(...later)
  expect(longest).toBeGreaterThan(1000)
  expect(longest).toBeLessThan(5000)
  backoff.reset()
  expect((await waits(backoff, 1))[0]).toBe(0)
})

test('no two servers wait in step', async () => {
  jest.useFakeTimers()
  const last = await Promise.all([1, 2, 3, 4].map(async () => (await waits(createBackoff(), 10)).at(-1)))
  expect(new Set(last).size).toBe(4)
})

test('a wait ends after its time', async () => {
  jest.useFakeTimers()
  const backoff = createBackoff()
  await waits(backoff, 1)
  let isOver = false
  void backoff.wait().then(() => {
    isOver = true
  })
  await Promise.resolve()
  expect(isOver).toBe(false)
  jest.advanceTimersByTime(50)
  await Promise.resolve()
  expect(isOver).toBe(true)
})
