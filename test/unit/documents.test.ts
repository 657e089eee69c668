import { expect, test } from 'bun:test'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { scripts } from '../../package.json' with { type: 'json' }

const root = resolve(import.meta.dir, '../..')
const read = (file: string): string => readFileSync(join(root, file), 'utf8')
const documents = [
  'CONTRIBUTING.md',
  'README.md',
  'SECURITY.md',
  ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`),
].filter((name) => name.endsWith('.md'))

/** What a pattern's first group finds in a file. */
const all = (file: string, pattern: RegExp): string[] => [...read(file).matchAll(pattern)].map(([, found = '']) => found)

test.each(documents)('every file, link and script that %s names is there', (file) => {
  const named = all(file, /`((?:\.ci|bench|client-example|deploy|docs|lib|test|tools)\/[^`\s]+)`/g)
  expect(named.filter((path) => !existsSync(join(root, path)))).toEqual([])
  const linked = all(file, /\]\((?!http|#)([^)#]+)[^)]*\)/g)
  expect(linked.filter((path) => !existsSync(join(root, dirname(file), path)))).toEqual([])
  const run = all(file, /npm run (?:--silent )?([a-z:]+)/g)
  expect(run.filter((name) => !(name in scripts))).toEqual([])
  const tested = all(file, /bun (?:test --timeout=\d+|test) (\S+)/g)
  expect(tested.filter((path) => !existsSync(join(root, path)))).toEqual([])
})

test('the architecture names each file of the program', () => {
  const files = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))
  const named = new Set(all('docs/architecture.md', /`((?:lib\/|main)[^`\s]*\.ts)`/g))
  expect(['main.ts', ...files.map((name) => `lib/${name}`)].filter((file) => !named.has(file))).toEqual([])
})

test('a test that the guide runs by its title is there', () => {
  const commands = [...read('CONTRIBUTING.md').matchAll(/(test\/\S+\.test\.ts) -t '([^']+)'/g)]
  expect(commands.length).toBeGreaterThan(0)
  for (const [, file = '', title = ''] of commands) expect(read(file)).toContain(title)
})
