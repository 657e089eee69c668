/** The page about the client module does what it says: its blocks are run as they stand there. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { spawn } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { startBrowser } from '../support/browser.ts'
import { type JournalDatabase, startJournal } from '../support/journal.ts'
import { blocksFor } from '../support/pages.ts'
import { type Program, start } from '../support/program.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

const root = resolve(import.meta.dir, '../..')
const isScript = (code: string): boolean => code.includes('publish.mjs')
const { block, all, left } = blocksFor('client-docs')
const readme = block('js', 'postgres-websockets.js', 'README.md')
const sql = block('sql', 'pgws.position()')
const shell = block('sh', 'node publish.mjs')
const blocks = all('js').filter((code) => code !== readme)

let journal: JournalDatabase
let program: Program
let browser: Browser
const folder = mkdtempSync(join(tmpdir(), 'pgws-client-'))

beforeAll(async () => {
  for (const name of ['postgres-websockets.js', 'style.css']) copyFileSync(join(root, 'client-example', name), join(folder, name))
  journal = await startJournal()
  await journal.sql.unsafe(`create table orders (id int primary key, item text);
    create trigger published after insert or update on orders for each row execute function pgws.publish_change('orders')`)
  program = await start(env())
  browser = await startBrowser()
})
afterAll(async () => {
  await browser.close()
  await program.stop()
  await journal.stop()
  rmSync(folder, { recursive: true })
})

const env = (port = '0') => ({
  PGWS_DB_URI: journal.uri,
  PGWS_PORT: port,
  PGWS_ROOT_PATH: folder,
  PGWS_JOURNAL: 'True',
  PGWS_JOURNAL_CHANNELS: 'chat',
})

/** A page of the server, with an application's own server beside it. */
async function open(): Promise<{ page: Page; said: string[] }> {
  const page = await browser.newPage()
  const said: string[] = []
  page.on('console', (line) => said.push(line.text()))
  page.on('pageerror', (error) => said.push(String(error)))
  await page.route('**/token', async (route) =>
    route.fulfill({ body: await token({ mode: 'rw', channels: ['chat', 'orders', 'plain'] }) }),
  )
  await page.route('**/orders', async (route) => {
    const [row] = await journal.sql.unsafe(sql)
    await route.fulfill({ json: row })
  })
  await page.goto(`http://127.0.0.1:${program.port}/style.css`)
  return { page, said }
}

/** Runs code as a module of the page. */
async function run(page: Page, code: string): Promise<void> {
  writeFileSync(join(folder, 'example.js'), `${code}\nglobalThis.client = client\nconsole.log('at the end')`)
  await page.evaluate(`void import('/example.js?${Math.random()}')`)
}

const order = async (id: number, item: string): Promise<unknown> => journal.sql`insert into orders values (${id}, ${item})`

test("the page's blocks, one behind the other, do what the page says", async () => {
  await order(1, 'tea')
  const { page, said } = await open()
  const browserBlocks = blocks.filter((code) => !isScript(code))
  const leave = browserBlocks.findIndex((code) => code.includes('orders.unsubscribe()'))
  // The first order has come before the subscription ends.
  browserBlocks.splice(leave, 0, `await new Promise((done) => setInterval(() => localStorage.getItem('orders') && done(), 10))`)
  await run(page, browserBlocks.join('\n'))
  await until(() => said.includes('at the end'))
  // A message and the answer to its publish come in either order.
  await until(() => said.includes('read hello string'))
  expect(said.toSorted()).toEqual([
    'at the end',
    'order INSERT tea',
    'read hello string',
    'refused CHANNEL_NOT_ALLOWED secret No allowed channels',
    'stored',
  ])
  await order(2, 'coffee')
  await until(() => said.includes('items tea,coffee'))
  expect(await page.evaluate("localStorage.getItem('orders')")).toMatch(/-\d+$/)

  said.length = 0
  await page.evaluate("client.subscribe('plain', {}, () => undefined).ready")
  await program.stop()
  program = await start(env(String(program.port)))
  await until(() => said.some((line) => line.startsWith('fetch again what happened on plain')))
  expect(said).toEqual(expect.arrayContaining(['state waiting', 'state open', expect.stringContaining('error NOT_CONNECTED')]))
  await page.close()
}, 20_000)

test("the README's lines read what its SQL publishes", async () => {
  const { page, said } = await open()
  await run(page, readme)
  await until(() => said.includes('at the end'))
  await journal.sql.unsafe(block('sql', 'hello from SQL'))
  await until(() => said.includes('hello from SQL'))
  await page.close()
})

test('the script publishes, and ends', async () => {
  const { page, said } = await open()
  await run(page, blocks.slice(0, 2).join('\n'))
  await until(() => said.includes('at the end'))
  writeFileSync(join(folder, 'publish.mjs'), blocks.find(isScript) ?? '')
  const env = {
    ...process.env,
    SERVER: program.origin,
    TOKEN: await token({ mode: 'w' }),
    NODE_OPTIONS: '--experimental-websocket',
  }
  const child = spawn('sh', ['-ec', shell], { cwd: folder, env })
  expect(await new Promise((done) => child.once('close', done))).toBe(0)
  await until(() => said.some((line) => line.startsWith('read from a script')))
  await page.close()
})

test('each block for this test was run', () => expect(left()).toEqual([]))
