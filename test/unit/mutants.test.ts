import { expect, test } from 'bun:test'
import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { mutants } from '../../tools/mutants/table.ts'

const root = resolve(import.meta.dir, '../..')
const read = (file: string): string => (existsSync(resolve(root, file)) ? readFileSync(resolve(root, file), 'utf8') : '')

test('each break of npm run test:mutants applies: its text stands exactly once in its file', () => {
  const times = mutants.map(({ file, find, promise }) => ({ promise, file, find, times: read(file).split(find).length - 1 }))
  expect(times.filter((entry) => entry.times !== 1)).toEqual([])
  expect(mutants.filter(({ find, replace }) => find === replace)).toEqual([])
})

test('each break names a test that is there', () => {
  const missing = mutants.filter(({ test, title = '' }) => read(test) === '' || !read(test).includes(title))
  expect(missing.map(({ test, title }) => ({ test, title }))).toEqual([])
})

test('each break is in the table once, and there are enough of them', () => {
  const keys = mutants.map(({ file, find, replace }) => `${file} ${find} ${replace}`)
  expect(new Set(keys).size).toBe(keys.length)
  expect(keys.length).toBeGreaterThanOrEqual(50)
})
