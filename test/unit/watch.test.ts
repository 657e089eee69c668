import { afterAll, expect, test } from 'bun:test'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createWatch } from '../../lib/config/watch.ts'

const folder = mkdtempSync(join(tmpdir(), 'pgws-watch-'))
afterAll(() => rmSync(folder, { recursive: true }))

const PERIOD = 20
const periods = (count: number): Promise<void> => Bun.sleep(count * PERIOD)

/** Watches a file, and counts how often it was said to have changed. */
function watching(path: string) {
  const watch = createWatch(PERIOD)
  let calls = 0
  let heard = (): void => undefined
  watch.readFile(path)
  watch.start(() => {
    calls++
    heard()
  })
  return {
    calls: () => calls,
    next: () =>
      new Promise<void>((resolve, reject) => {
        const late = setTimeout(() => reject(new Error('no change was told')), 2000)
        heard = () => {
          clearTimeout(late)
          resolve()
        }
      }),
    [Symbol.dispose]: () => watch.stop(),
  }
}

const file = (name: string, text: string): string => {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

test('a file is changed once for each change, also when it is not read again', async () => {
  const path = file('once', 'a')
  using watch = watching(path)
  for (const text of ['b', 'c']) {
    const next = watch.next()
    writeFileSync(path, text)
    await next
  }
  await periods(5)
  expect(watch.calls()).toBe(2)
})

test('a secret that Kubernetes swaps by a symlink above it is changed', async () => {
  for (const version of ['one', 'two']) {
    mkdirSync(join(folder, version))
    file(`${version}/secret`, 'same')
  }
  symlinkSync('one', join(folder, '..data'))
  symlinkSync('..data/secret', join(folder, 'secret'))
  using watch = watching(join(folder, 'secret'))
  const next = watch.next()
  symlinkSync('two', join(folder, '..new'))
  renameSync(join(folder, '..new'), join(folder, '..data'))
  await next
})

test('a file that is still being written is not read yet', async () => {
  const path = file('growing', '')
  using watch = watching(path)
  for (let index = 0; index < 40; index++) {
    writeFileSync(path, 'x'.repeat(index))
    await Bun.sleep(PERIOD / 4)
  }
  expect(watch.calls()).toBe(0)
  await watch.next()
})

test('a watch that is stopped says nothing', async () => {
  const path = file('stopped', 'a')
  const watch = watching(path)
  watch[Symbol.dispose]()
  writeFileSync(path, 'b')
  await periods(5)
  expect(watch.calls()).toBe(0)
})
