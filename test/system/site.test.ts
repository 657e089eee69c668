/** The site of the README and docs/, as the release's workflow publishes it: below a path of its host. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, posix, resolve } from 'node:path'
import { startBrowser } from '../support/browser.ts'
import { pages } from '../support/pages.ts'

const root = resolve(import.meta.dir, '../..')
const base = '/below/'
const folder = mkdtempSync(join(tmpdir(), 'pgws-site-'))

const built: string[] = []
const read = (file: string): string => readFileSync(join(folder, file), 'utf8')

/** What a pattern's first group finds in a file of the site. */
const all = (file: string, pattern: RegExp): string[] => [...read(file).matchAll(pattern)].map(([, found = '']) => found)

/** Where a page of the Markdown stands on the site. */
const address = (page: string): string => (page === 'README.md' ? 'index.html' : page.replace(/\.md$/, '.html'))

beforeAll(() => {
  const { status, stderr } = spawnSync('npm', ['run', 'docs:site', '--', '--base', base, '--outDir', folder], {
    cwd: root,
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(stderr)
  built.push(...readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.html')))
}, 120_000)
afterAll(() => rmSync(folder, { recursive: true }))

test('every page of the README and docs/ is a page of the site, and in its sidebar', () => {
  const expected = [...pages, 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md'].map(address)
  expect(built.toSorted()).toEqual([...expected, '404.html'].toSorted())
  const sidebar = all('index.html', /<a class="VPLink link link" href="([^"]+)"/g)
  expect(sidebar.toSorted()).toEqual(expected.map((file) => base + file.replace(/^index\.html$/, '')).toSorted())
})

test('every link leads to a file of the site, and to a heading there', () => {
  const links = built.flatMap((file) =>
    all(file, /(?:href|src)="([^"]*)"/g)
      .filter((link) => !/^(https?:|data:)/.test(link))
      .map((link) => ({ file, link })),
  )
  expect(links.length).toBeGreaterThan(500)
  const isDead = ({ file, link }: (typeof links)[number]): boolean => {
    const [path = '', anchor] = decodeURI(link).split('#')
    if (path.startsWith('/') && !path.startsWith(base)) return true
    const target = path === '' ? file : path.startsWith('/') ? path.slice(base.length) : posix.join(posix.dirname(file), path)
    const found = target === '' ? 'index.html' : target
    if (!existsSync(join(folder, found))) return true
    return anchor !== undefined && !all(found, /\bid="([^"]*)"/g).includes(anchor)
  }
  expect(links.filter(isDead)).toEqual([])
})

test('code is coloured, whatever stands behind its language', () => {
  for (const language of ['sql', 'sh', 'js', 'html', 'json', 'mermaid']) {
    const coloured = new RegExp(`<div class="language-${language} [^>]*>(?:(?!</pre>)[\\s\\S])*?--shiki-light:`)
    expect(built.filter((file) => coloured.test(read(file)))).not.toEqual([])
  }
  expect(built.filter((file) => /(run|skip)=[a-z]/.test(read(file).replace(/<code[\s\S]*?<\/code>/g, '')))).toEqual([])
})

test('a reader finds a page by a word in it, with nothing from another host and no error', async () => {
  const server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: ({ url }) => {
      const file = Bun.file(join(folder, new URL(url).pathname.slice(base.length) || 'index.html'))
      return file.size > 0 ? new Response(file) : new Response('', { status: 404 })
    },
  })
  const browser = await startBrowser()
  try {
    const page = await browser.newPage()
    const faults: string[] = []
    await page.route('**/*', (route) => {
      if (new URL(route.request().url()).port === String(server.port)) return route.continue()
      faults.push(route.request().url())
      return route.abort()
    })
    page.on('pageerror', (error) => faults.push(String(error)))
    await page.goto(`http://127.0.0.1:${server.port}${base}`)
    await page.getByRole('button', { name: 'Search' }).click()
    await page.locator('#localsearch-input').fill('Moving from the older server')
    await page.locator('#localsearch-list a[href*="migrating"]').first().click()
    await page.waitForURL(/docs\/migrating\.html/)
    await page.getByRole('heading', { level: 1, name: 'Moving from the older server' }).waitFor()
    for (const file of built) {
      const answer = await page.goto(`http://127.0.0.1:${server.port}${base}${file}`)
      expect(answer?.status()).toBe(200)
    }
    expect(faults).toEqual([])
  } finally {
    await browser.close()
    await server.stop(true)
  }
})
