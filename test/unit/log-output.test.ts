import { expect, test } from 'bun:test'
import { createLogOutput } from '../../lib/log-output.ts'

/** An output whose writes settle when the test says so. */
function stalled() {
  const written: string[] = []
  let wrote = (): void => undefined
  const settle: { take: (bytes: number) => void; fail: (code: string) => void }[] = []
  const output = createLogOutput({
    put: (bytes) =>
      new Promise((resolve, reject) => {
        written.push(Buffer.from(bytes).toString())
        settle.push({ take: resolve, fail: (code) => reject(Object.assign(new Error(code), { code })) })
        wrote()
      }),
    reportDropped: (lines) => output.write(`told ${lines}`),
  })
  /** Settles the write under way, and lets what follows from it happen. */
  const next = async (how: (write: (typeof settle)[number]) => void): Promise<void> => {
    const write = settle.shift()
    if (!write) throw new Error('nothing is written')
    how(write)
    await Bun.sleep(0)
  }
  /** Resolves when another write begins. */
  const another = (): Promise<void> =>
    new Promise((resolve) => {
      wrote = resolve
    })
  return { output, written, next, another }
}

const all = (text: string | undefined): number => Buffer.byteLength(text ?? '')

test('lines that come during a write go out together after it, in order', async () => {
  const { output, written, next } = stalled()
  for (const line of ['a', 'b', 'ü']) output.write(line)
  expect(written).toEqual(['a\n'])
  await next(({ take }) => take(2))
  expect(written).toEqual(['a\n', 'b\nü\n'])
  await next(({ take }) => take(2))
  expect(written[2]).toBe('ü\n')
})

test('what waits is bounded, what finds no room is counted, and that is said once there is room', async () => {
  const { output, written, next } = stalled()
  const line = 'x'.repeat(999)
  output.write('first')
  for (let count = 0; count < 1000; count++) output.write(line)
  expect(output.dropped).toBeGreaterThan(700)
  const { dropped } = output
  await next(({ take }) => take(6))
  expect(all(written[1])).toBeLessThanOrEqual(256 * 1024)
  output.write('later')
  expect(output.dropped).toBe(dropped)
  await next(({ take }) => take(all(written[1])))
  expect(written[2]).toBe('later\n')
  expect((written[1]?.match(/x\n/g)?.length ?? 0) + dropped).toBe(1000)
  await next(({ take }) => take(6))
  expect(`${written[1]}${written[2]}${written[3] ?? ''}`).toContain(`told ${dropped}\n`)
})

test('a reader that is gone costs lines, which are counted, and nothing else', async () => {
  const { output, written, next } = stalled()
  for (let count = 1; count <= 3; count++) {
    output.write('lost')
    await next(({ fail }) => fail('EPIPE'))
    expect(output.dropped).toBe(count)
  }
  output.write('seen')
  await next(({ take }) => take(5))
  expect(written.at(-1)).toBe('told 3\n')
})

test('an output that others have made refuse instead of wait is tried again', async () => {
  const { output, written, next, another } = stalled()
  output.write('kept')
  const again = another()
  await next(({ fail }) => fail('EAGAIN'))
  await again
  expect(written).toEqual(['kept\n', 'kept\n'])
  expect(output.dropped).toBe(0)
})

test('who waits for the last line waits no longer than it may', async () => {
  const { output, next } = stalled()
  await output.flushed(1000)
  output.write('last')
  const began = performance.now()
  await output.flushed(50)
  expect(performance.now() - began).toBeLessThan(1000)
  const flushed = output.flushed(10_000)
  await next(({ take }) => take(5))
  await flushed
  expect(performance.now() - began).toBeLessThan(5000)
})
