import { afterAll, beforeAll, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { parseEnvFile } from '../../lib/config/env-file.ts'
import { startBrowser } from '../support/browser.ts'
import { type Environment, launch, type Program, start } from '../support/program.ts'
import { database, sql } from '../support/setup.ts'
import { token } from '../support/token.ts'

const root = resolve(import.meta.dir, '../..')
const sample = parseEnvFile(readFileSync(resolve(root, 'sample-env'), 'utf8'))

const env = (): Environment => ({
  ...sample,
  PGWS_DB_URI: database().uri,
  PGWS_PORT: '0',
  PGWS_HOST: '127.0.0.1',
  PGWS_ROOT_PATH: resolve(root, 'client-example'),
})

let program: Program
let browser: Browser
const outside: string[] = []

beforeAll(async () => {
  program = await start(env())
  browser = await startBrowser()
})
afterAll(async () => {
  await browser.close()
  await program.stop()
})

async function open(options: Parameters<Browser['newPage']>[0] = {}, at = program): Promise<Page> {
  const page = await browser.newPage(options)
  const here = `127.0.0.1:${at.port}`
  await page.route('**/*', (route) => {
    if (new URL(route.request().url()).host === here) return route.continue()
    outside.push(route.request().url())
    return route.abort()
  })
  page.on('pageerror', (error) => outside.push(String(error)))
  await page.goto(`http://${here}/`)
  return page
}

async function openSocket(
  page: Page,
  values: { channels?: string; name?: string; seconds?: string; mode?: string } = {},
): Promise<void> {
  for (const [name, value] of Object.entries(values)) {
    if (name === 'mode') await page.check(`input[name=mode][value=${value}]`)
    else await page.fill(`input[name=${name}]`, value)
  }
  await page.click('#open button[type=submit]')
}

test('two tabs chat, a notification from SQL appears, and the server tells of each connection', async () => {
  const [ada, grace] = [await open(), await open()]
  await openSocket(ada, { name: 'Ada' })
  await ada.waitForSelector('.socket .state.open')
  await openSocket(grace, { name: 'Grace' })
  await grace.waitForSelector('.socket .state.open')
  await ada.fill('.socket input[name=text]', 'hello <b>Grace</b>')
  await ada.press('.socket input[name=text]', 'Enter')
  await grace.waitForSelector('.socket .messages >> text=Ada: hello <b>Grace</b>')
  await grace.fill('.socket input[name=text]', 'hello Ada 💶')
  await grace.click('.socket .write button')
  await ada.waitForSelector('.socket .messages >> text=Grace: hello Ada 💶')

  const statement = await ada.textContent('.socket .sql')
  await sql().unsafe(statement ?? '')
  for (const page of [ada, grace]) await page.waitForSelector('.socket .messages >> text=SQL: hello from SQL')
  expect(await ada.textContent('.socket .messages li:last-child pre')).toContain('"payload" : "hello from SQL"')
  await ada.waitForSelector('#meta-messages >> text=server: ConnectionOpen chat')

  await ada.click('.socket .end')
  await ada.waitForSelector('.socket .state >> text=closed with 1000')
  for (const page of [ada, grace]) await page.close()
})

test('after a reload, a channel of the journal shows what was said before', async () => {
  expect(await launch(env(), ['--install']).exited).toBe(0)
  await using kept = await start({ ...env(), PGWS_JOURNAL: 'True', PGWS_JOURNAL_CHANNELS: 'kept' })
  const page = await open({}, kept)
  await openSocket(page, { channels: 'kept', name: 'Ada' })
  await page.waitForSelector('.socket .state.open')
  await page.fill('.socket input[name=text]', 'said before')
  await page.press('.socket input[name=text]', 'Enter')
  await page.waitForSelector('.socket .messages >> text=Ada: said before')
  await page.reload()
  expect(await page.locator('.socket').count()).toBe(0)
  await openSocket(page, { channels: 'kept', name: 'Ada' })
  await page.waitForSelector('.socket .messages >> text=Ada: said before')
  await page.close()
})

test('several sockets stand side by side in one page, with their modes', async () => {
  const page = await open()
  await openSocket(page, { channels: 'a, b ü', name: 'Both' })
  await openSocket(page, { channels: 'b ü', name: 'Reader', mode: 'r' })
  await page.waitForSelector('.socket:nth-of-type(2) .state.open')
  expect(await page.isVisible('.socket:nth-of-type(2) .write')).toBe(false)
  await page.fill('.socket:nth-of-type(1) input[name=text]', 'to both')
  await page.press('.socket:nth-of-type(1) input[name=text]', 'Enter')
  await page.waitForSelector('.socket:nth-of-type(2) .messages >> text=Both: to both')
  expect(await page.locator('.socket:nth-of-type(1) .messages li').count()).toBe(2)
  await page.close()
})

test('an expired token shows its reason, and one that expires while the socket is open too', async () => {
  const page = await open()
  await openSocket(page, { seconds: '-1' })
  await page.waitForSelector('.state.failed >> text=refused: Token expired')
  await openSocket(page, { seconds: '1' })
  await page.waitForSelector('.state.failed >> text=closed with 3001: JWT expired')
  await page.close()
})

test.each([
  ['light', { width: 1280, height: 900 }],
  ['dark', { width: 390, height: 844 }],
] as const)(
  'in %s, %j, it needs no other network, throws no error and is no wider than its window',
  async (colorScheme, viewport) => {
    const page = await open({ colorScheme, viewport })
    await openSocket(page, {})
    await page.waitForSelector('.socket .state.open')
    const width = await page.evaluate('document.documentElement.scrollWidth')
    expect(width).toBeLessThanOrEqual(viewport.width)
    const background = await page.evaluate('getComputedStyle(document.body).backgroundColor')
    expect(background).toBe(colorScheme === 'light' ? 'rgb(244, 245, 247)' : 'rgb(20, 23, 26)')
    expect(outside).toBeEmpty()
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${colorScheme}.png`, fullPage: true })
    await page.close()
  },
)

test('a page on another origin opens no socket where PGWS_ALLOWED_ORIGINS names its own, and one on that origin does', async () => {
  const page = await open()
  const allowed = `http://127.0.0.1:${program.port}`
  await using server = await start({ PGWS_DB_URI: database().uri, PGWS_ALLOWED_ORIGINS: allowed })
  await using stricter = await start({ PGWS_DB_URI: database().uri, PGWS_ALLOWED_ORIGINS: 'https://app.example' })
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
