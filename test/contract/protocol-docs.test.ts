/** The pages about the protocols and tokens do what they say: their blocks in JavaScript are run as they stand there. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { SignJWT } from 'jose'
import type { Browser } from 'playwright-core'
import { startBrowser } from '../support/browser.ts'
import { connect } from '../support/client.ts'
import { blocksFor } from '../support/pages.ts'
import { type Program, start } from '../support/program.ts'
import { database, sql } from '../support/setup.ts'
import { secret, token } from '../support/token.ts'
import { until } from '../support/until.ts'

const { block, left } = blocksFor('protocol-docs')
let program: Program
let browser: Browser

beforeAll(async () => {
  program = await start({ PGWS_DB_URI: `${database().uri}?application_name=protocol-docs`, PGWS_CHECK_LISTENER_INTERVAL: '1000' })
  browser = await startBrowser()
})
afterAll(async () => {
  await browser.close()
  await program.stop()
})

/** Runs code in a page of the server, and returns what it writes on the console. */
async function inPage(code: string, signed: string): Promise<string[]> {
  const page = await browser.newPage()
  const said: string[] = []
  page.on('console', (line) => said.push(line.text()))
  page.on('pageerror', (error) => said.push(String(error)))
  await page.goto(`http://127.0.0.1:${program.port}/`)
  const here = code.replace(
    /(wss|https):\/\/example\.org/,
    (_, scheme) => `${scheme.replace(/s$/, '')}://127.0.0.1:${program.port}`,
  )
  await page.evaluate(`const token = '${signed}'\n${here}`)
  return said
}

/** Ends the LISTEN session, behind which messages may have been missed. */
async function cutListener(): Promise<void> {
  const before = program.stderr().length
  const sessions = await sql()`select pg_terminate_backend(pid) from pg_stat_activity
    where application_name = 'protocol-docs' and (query like '%pg_listening_channels%' or query ilike '%listen "%')`
  expect(sessions).toHaveLength(1)
  await program.logged(/listening again/, before)
}

const notify = (channel: string, payload: string) =>
  sql()`select pg_notify('postgres-websockets-listener', ${JSON.stringify({ event: 'WebsocketMessage', channel, payload })})`

test('a token is written in JavaScript', async () => {
  // The block reads the server's environment.
  const make = new Function('SignJWT', 'process', `return (async () => {${block('js', 'SignJWT')}; return token })()`)
  const signed: string = await make(SignJWT, { env: { PGWS_JWT_SECRET: secret } })
  await using client = await connect(`${program.origin}/chat`, { protocols: ['pgws', `pgws.token.${signed}`] })
  client.send('hello')
  expect(JSON.parse(await client.next())).toMatchObject({ claims: { name: 'Ada' }, payload: 'hello' })
})

test('a browser reads and writes texts, and is told what it may have missed', async () => {
  const said = await inPage(block('js', 'socket.onmessage = ({ data }) => {'), await token({ mode: 'rw', name: 'Ada' }))
  await until(() => said.includes('Ada hello'))
  await notify('chat', 'from SQL')
  await until(() => said.includes('database from SQL'))
  await cutListener()
  await notify('chat', 'behind the gap')
  await until(() => said.includes('database behind the gap'))
  expect(said.join('\n')).toMatch(/fetch again what happened from .+\n?.*database behind the gap/)
})

test('a page of the older server is told too once it offers the subprotocol', async () => {
  const code = `${block('js', 'const socket', 'docs/migrating.md')}\nsocket.onopen = () => console.log(socket.protocol)`
  const said = await inPage(code, await token({ mode: 'r' }))
  await until(() => said.includes('pgws'))
})

test('a browser publishes by a command', async () => {
  const said = await inPage(block('js', "['pgws.json', "), await token({ mode: 'rw' }))
  // The console shows objects in short.
  await until(() => said.some((line) => line.includes('Published')) && said.some((line) => line.includes('Message')))
  expect(said[0]).toContain('Connected')
})

test('an EventSource reads, and is told what it may have missed', async () => {
  const said = await inPage(block('js', 'EventSource'), await token({ mode: 'r' }))
  const came = async (): Promise<boolean> => {
    await notify('chat', 'here')
    return said.some((line) => line.includes('here'))
  }
  await until(came)
  await cutListener()
  await notify('chat', 'behind the gap')
  await until(() => said.some((line) => line.includes('behind the gap')))
  expect(said.some((line) => line.startsWith('fetch your state again'))).toBe(true)
})

test('each block for this test was run', () => expect(left()).toEqual([]))
