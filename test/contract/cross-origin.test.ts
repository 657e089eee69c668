/** What pages of other origins may ask, and what a browser's own EventSource makes of a stream. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { Browser, Page } from 'playwright-core'
import { startBrowser } from '../support/browser.ts'
import { type Answer, request } from '../support/client.ts'
import { startJournal } from '../support/journal.ts'
import { journalVariables } from '../support/journal-server.ts'
import { freePort } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { token } from '../support/token.ts'

const ALLOWED = 'https://app.example'

let any: Program
let some: Program
beforeAll(async () => {
  any = await start({ PGWS_DB_URI: database().uri })
  some = await start({ PGWS_DB_URI: database().uri, PGWS_ALLOWED_ORIGINS: `${ALLOWED},https://other.example` })
})
afterAll(async () => {
  await Promise.all([any.stop(), some.stop()])
})

const stream = { Host: 'x', Connection: 'close', Accept: 'text/event-stream' }
const length = { Host: 'x', Connection: 'close', 'Content-Length': '0' }

const sharing = ({ status, headers }: Answer) => ({
  status,
  origin: headers.get('Access-Control-Allow-Origin'),
  vary: headers.get('Vary'),
})

describe('pages of other origins', () => {
  test('may read any answer, a refusal too, where PGWS_ALLOWED_ORIGINS is unset, never with credentials', async () => {
    const given = await token({ mode: 'rw' })
    for (const [method, path, headers, status] of [
      ['HEAD', `/chat/${given}`, stream, 200],
      ['GET', '/chat/none', stream, 401],
      ['POST', `/chat/${given}`, length, 204],
      ['POST', '/chat/none', length, 401],
    ] as const) {
      const answer = await request(any.port, method, path, { ...headers, Origin: 'https://anybody.example' })
      expect(sharing(answer)).toEqual({ status, origin: '*', vary: null })
      expect(answer.headers.has('Access-Control-Allow-Credentials')).toBe(false)
    }
  })

  test('may read an answer where PGWS_ALLOWED_ORIGINS names theirs, and are refused where it does not', async () => {
    const given = await token({ mode: 'rw' })
    for (const [method, headers, status] of [
      ['HEAD', stream, 200],
      ['POST', length, 204],
    ] as const) {
      const asked = async (path: string, origin?: string) =>
        sharing(await request(some.port, method, path, { ...headers, ...(origin === undefined ? {} : { Origin: origin }) }))
      expect(await asked(`/chat/${given}`, ALLOWED)).toEqual({ status, origin: ALLOWED, vary: 'Origin' })
      expect(await asked('/chat/none', ALLOWED)).toEqual({ status: 401, origin: ALLOWED, vary: 'Origin' })
      expect(await asked(`/chat/${given}`, 'https://evil.example')).toEqual({ status: 403, origin: null, vary: 'Origin' })
      expect(await asked(`/chat/${given}`)).toEqual({ status, origin: null, vary: 'Origin' })
    }
  })

  test('are told ahead what they may send', async () => {
    const ask = async (on: Program, origin: string) =>
      request(on.port, 'OPTIONS', '/chat', {
        Host: 'x',
        Connection: 'close',
        Origin: origin,
        'Access-Control-Request-Method': 'POST',
        'Access-Control-Request-Headers': 'authorization,idempotency-key',
      })
    const answer = await ask(any, ALLOWED)
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'access-control-allow-origin': '*',
      'access-control-allow-methods': 'GET, HEAD, POST',
      'access-control-allow-headers': 'Authorization, Content-Type, Idempotency-Key, Last-Event-ID',
    })
    expect(answer.status).toBe(204)
    expect(sharing(await ask(some, ALLOWED))).toEqual({ status: 204, origin: ALLOWED, vary: 'Origin' })
    expect(sharing(await ask(some, 'https://evil.example'))).toEqual({ status: 204, origin: null, vary: 'Origin' })
  })
})

describe('in Chromium', () => {
  let browser: Browser
  let page: Page
  beforeAll(async () => {
    browser = await startBrowser()
    page = await browser.newPage()
    // Another origin than that of the streams.
    await page.goto(`http://localhost:${any.port}/`)
  })
  afterAll(() => browser.close())

  /** What a page's EventSource gets, as it comes. */
  async function listen(url: string): Promise<void> {
    await page.evaluate((address) => {
      const seen: string[] = []
      const source = new EventSource(address)
      Object.assign(globalThis, { seen, source })
      source.onopen = () => seen.push('open')
      source.onmessage = ({ data }) => seen.push(`message ${data}`)
      source.onerror = () => seen.push(`error ${source.readyState}`)
      source.addEventListener('TokenExpired', ({ data }) => seen.push(`TokenExpired ${data}`))
    }, url)
  }
  const seen = async (entry: string): Promise<string[]> => {
    await page.waitForFunction((wanted) => (globalThis as unknown as { seen: string[] }).seen.includes(wanted), entry)
    return page.evaluate(() => (globalThis as unknown as { seen: string[] }).seen)
  }

  test("an EventSource of another origin reads a channel, of which a page's fetch posts a message", async () => {
    const channel = unique('chromium')
    const given = await token({ mode: 'rw' })
    await listen(`http://127.0.0.1:${any.port}/${channel}/${given}`)
    await seen('open')
    const text = JSON.stringify({ channel, payload: 'one\ntwo ☕' })
    await sql().notify('postgres-websockets-listener', text)
    expect(await seen(`message ${text}`)).toEqual(['open', `message ${text}`])
    const status = await page.evaluate(
      async ([url, bearer]) => {
        const headers = { Authorization: `Bearer ${bearer}`, 'Idempotency-Key': 'k' }
        return (await fetch(url ?? '', { method: 'POST', body: 'posted', headers })).status
      },
      [`http://127.0.0.1:${any.port}/${channel}`, given],
    )
    expect(status).toBe(204)
    await page.waitForFunction(() => (globalThis as unknown as { seen: string[] }).seen.at(-1)?.includes('"payload":"posted"'))
  })

  test('an EventSource whose token ends is told so, comes again, and gives up when it is refused', async () => {
    const exp = Date.now() / 1000 + 1
    await listen(`http://127.0.0.1:${any.port}/chat/${await token({ mode: 'r', exp })}`)
    const told = `TokenExpired ${JSON.stringify({ expires: exp })}`
    await seen(told)
    expect(await seen('error 2')).toEqual(['open', told, 'error 0', 'error 2'])
  })

  test('an EventSource that is cut off ahead of its first message gets those of the journal that it missed', async () => {
    const journal = await startJournal()
    const env = { ...journalVariables(journal), PGWS_PORT: String(await freePort()) }
    const first = await start(env)
    await listen(`http://127.0.0.1:${first.port}/unread/${await token({ mode: 'r' })}`)
    await seen('open')
    await first.stop()
    await journal.sql`select pgws.publish('unread', 'meanwhile')`
    await using _second = await start(env)
    await seen('message meanwhile')
    await page.evaluate(() => (globalThis as unknown as { source: EventSource }).source.close())
    await journal.stop()
  })

  test('an EventSource comes again to a server that was stopped and started, when it was told to', async () => {
    const port = String(await freePort())
    const channel = unique('again')
    const env = { PGWS_DB_URI: database().uri, PGWS_PORT: port }
    const first = await start(env)
    await listen(`http://127.0.0.1:${port}/${channel}/${await token({ mode: 'r' })}`)
    await seen('open')
    await first.stop()
    await using _second = await start(env)
    await page.waitForFunction(
      () => (globalThis as unknown as { seen: string[] }).seen.filter((entry) => entry === 'open').length === 2,
    )
    await sql().notify('postgres-websockets-listener', JSON.stringify({ channel, payload: 'again' }))
    await seen(`message ${JSON.stringify({ channel, payload: 'again' })}`)
  })
})
