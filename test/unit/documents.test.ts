import { expect, test } from 'bun:test'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { scripts } from '../../package.json' with { type: 'json' }
import { blocks, pages } from '../support/pages.ts'

const root = resolve(import.meta.dir, '../..')
const read = (file: string): string => readFileSync(join(root, file), 'utf8')
const documents = ['CONTRIBUTING.md', 'SECURITY.md', ...pages]

/** What a pattern's first group finds in a file. */
const all = (file: string, pattern: RegExp): string[] => [...read(file).matchAll(pattern)].map(([, found = '']) => found)

test.each(documents)('every file, link and script that %s names is there', (file) => {
  const named = all(file, /`((?:\.ci|bench|client-example|deploy|docs|lib|test|tools)\/[^`\s]+)`/g)
  expect(named.filter((path) => !existsSync(join(root, path)))).toEqual([])
  const linked = all(file, /\]\((?!http|#)([^)#]+)[^)]*\)/g)
  expect(linked.filter((path) => !existsSync(join(root, dirname(file), path)))).toEqual([])
  const anchored = [...read(file).matchAll(/\]\((?!http)([^)#]*)#([^)]+)\)/g)].map(([, path = '', anchor = '']) => [
    path === '' ? file : join(dirname(file), path),
    anchor,
  ])
  expect(anchored.filter(([path = '', anchor = '']) => !anchorsOf(path).has(anchor))).toEqual([])
  const run = all(file, /npm run (?:--silent )?([a-z:]+)/g)
  expect(run.filter((name) => !(name in scripts))).toEqual([])
  const tested = all(file, /bun (?:test --timeout=\d+|test) (\S+)/g)
  expect(tested.filter((path) => !existsSync(join(root, path)))).toEqual([])
})

/** The anchors of a page's headings, as GitHub makes them. */
function anchorsOf(file: string): ReadonlySet<string> {
  const text = read(file).replace(/^ *```[\s\S]*?^ *```$/gm, '')
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => heading)
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}_ -]/gu, '')
        .replaceAll(' ', '-'),
    ),
  )
}

test('the README links every page', () => {
  const linked = all('README.md', /\]\((docs\/[^)#]+\.md)\)/g)
  expect(pages.filter((page) => page !== 'README.md' && !linked.includes(page))).toEqual([])
})

test('the README is read in a few minutes: it has 900 words at most', () => {
  const words = read('README.md').match(/\S*[\p{L}\p{N}]\S*/gu) ?? []
  expect(words.length).toBeLessThanOrEqual(900)
})

/** Why nobody runs a block. */
const reasons: Readonly<Record<string, string>> = {
  clone: 'takes a clone and minutes; test/contract/start.test.ts starts what it starts',
  example: 'holds names and passwords of somebody else',
  postgrest: 'needs PostgREST, which is not in npm',
  docker: 'needs a container engine, and pulls images',
  root: 'installs a package as root; test/system/release.test.ts does so in a folder',
  deno: 'the contract tests run against the source on Deno with the same flags',
}

test('each block of shell, SQL and JavaScript is run by a test, or says why not', () => {
  const code = blocks.filter(({ language }) => ['sh', 'sql', 'js', 'html'].includes(language))
  const isRun = (name: string): boolean =>
    ['contract', 'system'].some((kind) => existsSync(join(root, `test/${kind}/${name}.test.ts`)))
  const known = ({ mark }: { readonly mark: string }): boolean => {
    const [, kind, word = ''] = /^(run|skip)=(\S+)$/.exec(mark) ?? []
    return kind === 'run' ? isRun(word) : kind === 'skip' && word in reasons
  }
  expect(code.filter((block) => !known(block)).map(({ file, code: text }) => `${file}: ${text}`)).toEqual([])
  // A fence in another form would be passed over.
  const fences = pages.flatMap((file) => all(file, /^ *```(\S.*)$/gm))
  expect(fences).toHaveLength(blocks.length)
})

test('a test that runs blocks proves that it ran all that are marked for it', () => {
  const named = [...new Set(blocks.map(({ mark }) => /^run=(\S+)$/.exec(mark)?.[1]).filter((name) => name !== undefined))]
  expect(named.length).toBeGreaterThan(3)
  for (const name of named) {
    const kind = existsSync(join(root, `test/contract/${name}.test.ts`)) ? 'contract' : 'system'
    expect(read(`test/${kind}/${name}.test.ts`)).toMatch(/expect\(left\(\)\)\.toEqual\(\[\]\)/)
  }
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
