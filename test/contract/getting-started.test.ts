/**
 * The tutorial does what it says: its blocks are run in their order, as they stand there. PostgREST is not in npm: what it would do with a request, the
 * test does in SQL, as the role and with the claims of the request's token.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { jwtVerify } from 'jose'
import type { Browser, Page, Route } from 'playwright-core'
import postgres from 'postgres'
import { startBrowser } from '../support/browser.ts'
import { blocksFor } from '../support/pages.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { commandLine, type Environment, launch } from '../support/program.ts'
import { installPsql } from '../support/psql.ts'

const root = resolve(import.meta.dir, '../..')
const { block, left } = blocksFor('getting-started')
const folder = mkdtempSync(join(tmpdir(), 'pgws-tutorial-'))
let server: Postgres
let authenticator: postgres.Sql
let program: ReturnType<typeof launch>
let browser: Browser
let address = ''

const env = (): Environment => ({
  PATH: `${join(folder, 'bin')}:${process.env.PATH}`,
  HOME: folder,
  PGHOST: '127.0.0.1',
  PGPORT: String(server.port),
  PGUSER: 'postgres',
  PGPASSWORD: server.password,
  PGDATABASE: 'app',
})

/** Runs lines of the page, and returns what they print. */
function shell(code: string): string {
  const { status, stdout, stderr } = spawnSync('sh', ['-ec', code], {
    cwd: folder,
    encoding: 'utf8',
    env: env() as NodeJS.ProcessEnv,
  })
  if (status !== 0) throw new Error(`${code}: ${stderr}`)
  return stdout
}

const save = (name: string, code: string): void => writeFileSync(join(folder, name), code)

/** What PostgREST does with a request: it verifies the token, takes its role, and shows its claims. */
async function asPostgrest(bearer: string, statement: string): Promise<postgres.Row | undefined> {
  const secret = readFileSync(join(folder, 'jwt-secret'), 'utf8').trimEnd()
  const { payload } = await jwtVerify(bearer, new TextEncoder().encode(secret))
  const rows = await authenticator.begin(async (sql) => {
    await sql`select set_config('role', ${String(payload.role)}, true), set_config('request.jwt.claims', ${JSON.stringify(payload)}, true)`
    return sql.unsafe(statement)
  })
  return rows[0]
}

async function issue(route: Route): Promise<void> {
  const [, bearer = ''] = (route.request().headers().authorization ?? '').split(' ')
  const row = await asPostgrest(bearer, 'select api.orders_token() as token')
  await route.fulfill({ json: row?.token, headers: { 'Access-Control-Allow-Origin': '*' } })
}

const lines = (page: Page) => page.locator('#orders li').allTextContents()
const shown = async (page: Page, text: string) => page.locator('#orders li').getByText(text, { exact: true }).waitFor()

/** Opens the address that the tutorial prints. */
async function open(): Promise<Page> {
  const page = await browser.newPage()
  await page.route('http://localhost:3002/rpc/orders_token', issue)
  await page.goto(address)
  return page
}

beforeAll(async () => {
  server = await startPostgres()
  const first = postgres(server.uri, { max: 1 })
  await first`create database app`
  await first.end()
  mkdirSync(join(folder, 'bin'))
  installPsql(join(folder, 'bin'))
  writeFileSync(join(folder, 'postgres-websockets'), `#!/bin/sh\nexec ${commandLine.join(' ')} "$@"\n`, { mode: 0o755 })
  // The folder of an unpacked release.
  for (const name of ['deploy', 'client-example']) symlinkSync(join(root, name), join(folder, name))
  browser = await startBrowser()
})
afterAll(async () => {
  await browser.close()
  program?.signal('SIGTERM')
  await program?.exited
  await authenticator?.end({ timeout: 1 })
  await server.stop()
  rmSync(folder, { recursive: true })
})

test('the database is set up', () => {
  save('app.sql', block('sql', 'create role authenticator'))
  shell(block('sh', 'app.sql'))
  shell(block('sh', '--install'))
  save('journal.sql', block('sql', 'create trigger orders_changed'))
  shell(block('sh', 'journal.sql'))
  shell(block('sh', 'deploy/token.sql'))
  save('orders.sql', block('sql', 'api.orders_token'))
  shell(block('sh', 'orders.sql'))
  authenticator = postgres(`postgres://authenticator:change-me@127.0.0.1:${server.port}/app`, { max: 1 })
})

test('the server starts, with the page', async () => {
  shell(block('sh', 'mkdir page'))
  save('page/index.html', block('html', 'Orders'))
  const start = block('sh', 'PGWS_ROOT_PATH=page')
  program = launch({ ...env(), PGWS_JWT_SECRET: undefined }, ['-c', `cd '${folder}' && ${start}`], 'sh')
  const port = await program.bound()
  await program.logged(/info: listening /)
  address = shell(block('sh', '#login=')).trim().replace('localhost:3000', `127.0.0.1:${port}`)
})

test('the page shows each order, whoever places it, and has them all when it comes back', async () => {
  const page = await open()
  const login = address.split('#login=')[1] ?? ''
  await asPostgrest(login, `insert into api.orders (item) values ('tea')`)
  await shown(page, 'INSERT tea')
  shell(block('sh', "values ('coffee')"))
  await shown(page, 'INSERT coffee')
  await page.reload()
  await shown(page, 'INSERT coffee')
  expect(await lines(page)).toEqual(['INSERT tea', 'INSERT coffee'])
  await page.close()
  await asPostgrest(login, `insert into api.orders (item) values ('cake')`)
  const again = await open()
  await shown(again, 'INSERT cake')
  expect(await lines(again)).toEqual(['INSERT tea', 'INSERT coffee', 'INSERT cake'])
})

test('who is not logged in gets no token', async () => {
  await expect(
    authenticator.begin(async (sql) => {
      await sql`set local role web_anon`
      return sql`select api.orders_token()`
    }),
  ).rejects.toThrow('permission denied for function orders_token')
})

test('each block for this test was run', () => expect(left()).toEqual([]))
