/** The example page in a real browser, on a database with the journal, with what `npm start` gives it. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { resolve } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { startTrial, type Trial } from '../../tools/start/trial.ts'
import { startBrowser } from '../support/browser.ts'
import { type JournalDatabase, startJournal } from '../support/journal.ts'
import { type Program, start } from '../support/program.ts'
import { secret, token } from '../support/token.ts'
import { until } from '../support/until.ts'

const folder = resolve(import.meta.dir, '../../client-example')

let journal: JournalDatabase
let trial: Trial
let program: Program
let browser: Browser
/** Requests to anywhere else, and exceptions. */
const outside: string[] = []

const env = (port = '0') => ({
  PGWS_DB_URI: journal.uri,
  PGWS_PORT: port,
  PGWS_ROOT_PATH: trial.folder,
  PGWS_META_CHANNEL: 'server-info',
  PGWS_META_EVENTS: 'all',
  PGWS_CHECK_LISTENER_INTERVAL: '500',
  PGWS_JOURNAL: 'True',
  PGWS_JOURNAL_CHANNELS: 'chat,orders',
})

beforeAll(async () => {
  journal = await startJournal()
  trial = await startTrial({ page: folder, secret, uri: journal.uri })
  program = await start(env())
  trial.allow(String(program.port))
  browser = await startBrowser()
})
afterAll(async () => {
  await browser.close()
  await program.stop()
  await trial.stop()
  await journal.stop()
})

async function open(options: Parameters<Browser['newPage']>[0] = {}, { port } = program): Promise<Page> {
  const page = await browser.newPage(options)
  await page.route('**/*', (route) => {
    if (new URL(route.request().url()).hostname === '127.0.0.1') return route.continue()
    outside.push(route.request().url())
    return route.abort()
  })
  page.on('pageerror', (error) => outside.push(String(error)))
  await page.goto(`http://127.0.0.1:${port}/`)
  return page
}

const ada = (page: Page) => page.locator('.person').nth(0)
const grace = (page: Page) => page.locator('.person').nth(1)

async function areConnected(page: Page): Promise<void> {
  for (const person of [ada, grace]) await person(page).locator('.state.open').waitFor()
}

async function say(page: Page, text: string): Promise<void> {
  await ada(page).getByRole('textbox', { name: 'Message' }).fill(text)
  await ada(page).getByRole('button', { name: 'Send', exact: true }).click()
}

const seen = (page: Page, text: string) =>
  Promise.all([ada, grace].map((person) => person(page).locator('.messages').getByText(text, { exact: true }).waitFor()))

test('two people are there when it opens, and what one writes the other one sees', async () => {
  const page = await open()
  await areConnected(page)
  expect(await page.locator('.person h2').allTextContents()).toEqual(['Ada', 'Grace'])
  await say(page, 'hello Grace 💶')
  await seen(page, 'Ada hello Grace 💶')
  await journal.sql`select pgws.publish('chat', 'hello from SQL')`
  await seen(page, 'SQL hello from SQL')
  await page.close()
})

test('an order that one places appears on both sides, and what becomes of it too', async () => {
  const page = await open()
  await areConnected(page)
  await ada(page).getByRole('button', { name: 'Place an order' }).click()
  for (const person of [ada, grace]) await person(page).getByRole('cell', { name: 'new' }).waitFor()
  await grace(page).getByRole('button', { name: 'Send order 1' }).click()
  for (const person of [ada, grace]) await person(page).getByRole('cell', { name: 'sent' }).waitFor()
  expect(await page.getByRole('cell', { name: 'new' }).count()).toBe(0)
  await journal.sql`update orders set item = 'of psql'`
  for (const person of [ada, grace]) await person(page).getByRole('cell', { name: 'of psql' }).waitFor()
  await page.close()
})

test('after a reload, what was said and ordered is there', async () => {
  await journal.sql`insert into orders (item) values ('before')`
  await journal.sql`select pgws.publish('chat', 'said before')`
  const page = await open()
  for (let time = 0; time < 2; time++) {
    await seen(page, 'SQL said before')
    for (const person of [ada, grace]) await person(page).getByRole('cell', { name: 'before' }).waitFor()
    await page.reload()
  }
  await page.close()
})

test('a server that stops is seen, and once it is back the page is too, with what was written meanwhile', async () => {
  const page = await open()
  await areConnected(page)
  await program.stop()
  for (const person of [ada, grace]) await person(page).getByText('no connection: trying again').waitFor()
  await say(page, 'written meanwhile')
  await ada(page).getByText('not stored yet: written meanwhile').waitFor()
  program = await start(env(String(program.port)))
  await seen(page, 'Ada written meanwhile')
  await areConnected(page)
  expect(await ada(page).locator('.pending li').count()).toBe(0)
  await page.close()
})

test('a database that stops is seen by who writes, and once it is back everything is stored', async () => {
  const page = await open()
  await areConnected(page)
  await journal.server.stop('fast')
  await say(page, 'kept for later')
  await ada(page).getByText('not stored yet: kept for later').waitFor()
  await ada(page).getByRole('button', { name: 'Place an order' }).click()
  await ada(page).getByText('No order was placed').waitFor()
  await journal.server.start()
  await seen(page, 'Ada kept for later')
  await until(async () => (await ada(page).locator('.pending li').count()) === 0)
  await page.close()
})

test('nothing scrolls or grows by itself, and what came and what servers say is folded away', async () => {
  const page = await open({ viewport: { width: 1280, height: 400 } })
  await areConnected(page)
  await say(page, 'first')
  await seen(page, 'Ada first')
  const measure = () => page.evaluate('[document.documentElement.scrollHeight, scrollY, document.activeElement.name]')
  const before = await measure()
  for (let number = 0; number < 30; number++) await journal.sql`select pgws.publish('chat', ${`many ${number}`})`
  await seen(page, 'SQL many 29')
  expect(await measure()).toEqual(before)
  expect([await page.locator('#raw').isVisible(), await page.locator('#events').isVisible()]).toEqual([false, false])
  await page.getByText('Messages as they came').click()
  await page.locator('#raw').getByText('many 29').first().waitFor()
  await page.getByText('What the connections and the server say').click()
  await page.locator('#events').getByText('ConnectionOpen').first().waitFor()
  await page.close()
})

test.each([
  ['light', { width: 1280, height: 900 }],
  ['dark', { width: 360, height: 740 }],
] as const)(
  'in %s, %j, it needs no other network, throws no error and is no wider than its window',
  async (colorScheme, viewport) => {
    const page = await open({ colorScheme, viewport })
    await areConnected(page)
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(viewport.width)
    const background = await page.evaluate('getComputedStyle(document.body).backgroundColor')
    expect(background).toBe(colorScheme === 'light' ? 'rgb(244, 245, 247)' : 'rgb(20, 23, 26)')
    expect(outside).toBeEmpty()
    await page.close()
  },
)

test('on a server that gives it no tokens it asks for one, and keeps it in its tab', async () => {
  await using other = await start({ ...env(), PGWS_ROOT_PATH: folder })
  const page = await open({}, other)
  await page.getByRole('textbox', { name: 'Token' }).fill(await token({ mode: 'rw', channels: ['chat'], name: 'Eve' }))
  await page.getByRole('button', { name: 'Connect' }).click()
  await areConnected(page)
  await say(page, 'with my own token')
  await seen(page, 'Eve with my own token')
  expect(await page.locator('.orders:visible').count()).toBe(0)
  await page.reload()
  await areConnected(page)
  await page.close()
})

test('npm start gives tokens and takes orders of its own page alone', async () => {
  const { url } = await (await fetch(`http://127.0.0.1:${program.port}/start.json`)).json()
  const ask = async (origin: string | undefined): Promise<number> =>
    (await fetch(`${url}token`, { headers: origin === undefined ? {} : { Origin: origin } })).status
  const { port } = program
  expect(await ask(`http://localhost:${port}`)).toBe(200)
  for (const origin of ['https://example.org', `http://localhost:${port + 1}`, `http://example.org:${port}`, undefined])
    expect(await ask(origin)).toBe(403)
})

test('a page on another origin opens no socket where PGWS_ALLOWED_ORIGINS names its own, and one on that origin does', async () => {
  const page = await open()
  const allowed = `http://127.0.0.1:${program.port}`
  await using server = await start({ PGWS_DB_URI: journal.uri, PGWS_ALLOWED_ORIGINS: allowed })
  await using stricter = await start({ PGWS_DB_URI: journal.uri, PGWS_ALLOWED_ORIGINS: 'https://app.example' })
  const tried = (origin: string, path: string): Promise<string> =>
    page.evaluate(
      (url) =>
        new Promise<string>((done) => {
          const socket = new WebSocket(url)
          socket.onopen = () => done('open')
          socket.onclose = ({ code }) => done(String(code))
        }),
      `${origin}${path}`,
    )
  const path = `/chat/${await token({ mode: 'r' })}`
  expect(await tried(server.origin, path)).toBe('open')
  expect(await tried(stricter.origin, path)).toBe('1006')
  await stricter.logged(/status=403/)
  await page.close()
})
