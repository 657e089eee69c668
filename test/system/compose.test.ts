/** What `docker compose up` starts, without containers and PostgREST: its scripts, its roles, its statements, and the server with its environment. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { YAML } from 'bun'
import { decodeJwt, type JWTPayload } from 'jose'
import type { Browser, Page } from 'playwright-core'
import postgres from 'postgres'
import { startBrowser } from '../support/browser.ts'
import { connect } from '../support/client.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { launch, type Program, start } from '../support/program.ts'

const root = resolve(import.meta.dir, '../..')
const read = (name: string): string => readFileSync(join(root, name), 'utf8')

interface Service {
  readonly command?: readonly string[]
  readonly entrypoint?: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly volumes?: readonly string[]
  readonly ports?: readonly string[]
}
// The file is the project's own; what it lacks fails the tests below.
const { services } = YAML.parse(read('compose.yaml')) as {
  services: Record<'database' | 'journal' | 'prepare' | 'rest' | 'websockets', Service>
}

let server: Postgres
let admin: postgres.Sql
let program: Program
let browser: Browser
let secret = ''

/** A service's variables, for the tests' own server. */
const variables = ({ environment }: Service): Record<string, string> =>
  Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [name, value.replace('@database:5432', `@127.0.0.1:${server.port}`)]),
  )

/** What the service `prepare` has psql do; its last answer is the secret. */
async function prepare(): Promise<string> {
  let secret = ''
  for (const [, statement = ''] of (services.prepare.entrypoint ?? []).map((word) => word.split('--command=')))
    if (statement !== '') secret = (await admin.unsafe(statement))[0]?.value
  return secret
}

const serverVariables = (): Record<string, string> => {
  const given = variables(services.websockets)
  const folder = given.PGWS_ROOT_PATH?.replace('/home/postgres-websockets', root) ?? ''
  return { ...given, PGWS_JWT_SECRET: secret, PGWS_ROOT_PATH: folder }
}

beforeAll(async () => {
  server = await startPostgres()
  const { PGWS_DB_URI: uri = '' } = variables(services.journal)
  const first = postgres(server.uri, { max: 1 })
  await first`create database app`
  await first.unsafe(`alter role postgres password '${new URL(uri).password}'`)
  await first.end()
  admin = postgres(uri, { max: 1, onnotice: () => undefined })
  // What the database runs at its first start, in its order.
  const scripts = services.database.volumes?.map((volume) => volume.split(':')[0] ?? '') ?? []
  for (const name of scripts) await admin.unsafe(read(name))
  // Twice, for whoever starts it a second time.
  for (let time = 0; time < 2; time++) {
    const install = { ...variables(services.journal), PGWS_JWT_SECRET: undefined }
    expect(await launch(install, services.journal.command).exited).toBe(0)
    secret = await prepare()
  }
  program = await start(serverVariables())
  browser = await startBrowser()
})
afterAll(async () => {
  await browser.close()
  await program.stop()
  await admin.end()
  await server.stop()
})

/** Runs a statement as PostgREST does for a request: as the role and with the claims of its token, or as anyone. */
async function rest(token: string | undefined, statement: string) {
  const claims: JWTPayload = token === undefined ? {} : decodeJwt(token)
  const { PGRST_DB_URI = '', PGRST_DB_ANON_ROLE } = variables(services.rest)
  const sql = postgres(PGRST_DB_URI, { max: 1 })
  try {
    return await sql.begin(async (transaction) => {
      await transaction.unsafe(`set local role ${claims.role ?? PGRST_DB_ANON_ROLE}`)
      await transaction`select set_config('request.jwt.claims', ${JSON.stringify(claims)}, true)`
      return [...(await transaction.unsafe(statement))]
    })
  } finally {
    await sql.end()
  }
}

/** The token that a name and the password of the file's head get. */
async function logIn(name: string): Promise<string> {
  const [, password] = /"password": "(.+?)"/.exec(read('compose.yaml')) ?? []
  const [row] = await rest(undefined, `select api.login('${name}', '${password}') as token`)
  return row?.token
}

/** The example page, which asks for a token. */
async function open(token: string): Promise<Page> {
  const page = await (await browser.newContext()).newPage()
  await page.goto(program.origin.replace('ws:', 'http:'))
  await page.getByRole('textbox', { name: 'Token' }).fill(token)
  await page.getByRole('button', { name: 'Connect' }).click()
  await page.locator('.person .state.open').nth(1).waitFor()
  return page
}

async function say(page: Page, text: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Message' }).first().fill(text)
  await page.getByRole('button', { name: 'Send', exact: true }).first().click()
}

const seen = (page: Page, text: string) => page.locator('.messages').first().getByText(text).waitFor()

test('every port is on this machine alone, and no secret stands in the file', () => {
  for (const { ports = [] } of Object.values(services)) for (const port of ports) expect(port).toStartWith('127.0.0.1:')
  expect(services.rest.environment.PGRST_JWT_SECRET).toBe('@/secrets/jwt-secret')
  expect(services.websockets.environment.PGWS_JWT_SECRET).toBe('@/secrets/jwt-secret')
  expect(secret).toHaveLength(64)
})

test('PostgREST and the server connect as ordinary roles, with the rights of nobody whom they do not speak for', async () => {
  for (const uri of [variables(services.rest).PGRST_DB_URI, variables(services.websockets).PGWS_DB_URI]) {
    const sql = postgres(uri ?? '', { max: 1 })
    const [role] = await sql`select rolsuper or rolcreaterole or rolcreatedb or rolbypassrls as special
      from pg_roles where rolname = current_user`
    expect(role?.special).toBe(false)
    await expect(sql`insert into api.orders (item) values ('tea')`.execute()).rejects.toThrow('permission denied')
    await sql.end()
  }
})

test('the check finds nothing wrong with the environment', async () => {
  const check = launch(serverVariables(), ['--check'])
  expect(await check.exited).toBe(0)
  expect(check.stdout()).not.toMatch(/[✗!] /)
})

test('anyone reads orders and logs in with a right password; who is logged in writes, and sees no password', async () => {
  expect(await rest(undefined, 'select * from api.orders')).toEqual([])
  for (const statement of [`insert into api.orders (item) values ('tea')`, 'select api.websocket_token()'])
    await expect(rest(undefined, statement)).rejects.toThrow('permission denied')
  for (const arguments_ of [`'ada', 'wrong'`, `'eve', 'for-trying-out-only'`, `'ada', null`])
    await expect(rest(undefined, `select api.login(${arguments_})`)).rejects.toThrow('wrong name or password')
  const token = await logIn('ada')
  expect(decodeJwt(token)).toMatchObject({ role: 'web_user', mode: 'rw', sub: 'ada', name: 'Ada' })
  for (const table of ['chat.people', 'websockets.secret'])
    await expect(rest(token, `select * from ${table}`)).rejects.toThrow('permission denied')
  const own = await rest(token, 'select distinct person from chat.members')
  expect(own.map(({ person }) => person)).toEqual(['ada'])
})

test('the token function gives a token for the chat, whose readers see its sub and no role', async () => {
  const [row] = await rest(await logIn('ada'), `select api.websocket_token() ->> 'token' as token`)
  await using client = await connect(`${program.origin}/${row?.token}`)
  client.send('hello')
  const message = JSON.parse(await client.next())
  expect(message).toMatchObject({ channel: 'chat', claims: { sub: 'ada' }, payload: 'hello' })
  expect(message.claims).not.toHaveProperty('role')
})

test('the database says who may: a channel that it does not know is closed, and orders are to be read alone', async () => {
  const token = await logIn('ada')
  const post = async (channel: string): Promise<number> =>
    (await fetch(`http://127.0.0.1:${program.port}/${channel}/${token}`, { method: 'POST', body: 'posted' })).status
  expect([await post('chat'), await post('orders'), await post('secrets')]).toEqual([204, 403, 403])
})

test('in the page, Ada and Grace chat, orders appear and are there after a reload, and who is taken out is out at once', async () => {
  const tokens = await Promise.all(['ada', 'grace'].map(logIn))
  const [ada, grace] = (await Promise.all(tokens.map(open))) as [Page, Page]
  await say(ada, 'hello Grace')
  await seen(grace, 'Ada hello Grace')
  await say(grace, 'hello Ada')
  await seen(ada, 'Grace hello Ada')
  await rest(tokens[0], `insert into api.orders (item) values ('tea')`)
  for (const page of [ada, grace]) await page.getByRole('cell', { name: 'tea' }).first().waitFor()
  await ada.reload()
  await seen(ada, 'Grace hello Ada')
  await ada.getByRole('cell', { name: 'tea' }).first().waitFor()
  const [, statement = ''] = /-c "(delete .+?)"/.exec(read('compose.yaml')) ?? []
  await admin.unsafe(statement)
  await grace.getByText('What the connections and the server say').click()
  await grace
    .locator('#events')
    .getByText(/chat: /)
    .first()
    .waitFor()
  await say(grace, 'still here?')
  await grace.getByText('not sent: still here?').first().waitFor()
  await say(ada, 'alone')
  await seen(ada, 'Ada alone')
  expect(await grace.locator('.messages').getByText('Ada alone').count()).toBe(0)
})

test('no file of a deployment holds a secret that works', () => {
  const sample = /PGWS_JWT_SECRET="(\w+)"/.exec(read('sample-env'))?.[1] ?? ''
  for (const name of [
    'compose.yaml',
    'deploy/compose.sql',
    'deploy/compose-chat.sql',
    'deploy/kubernetes.yaml',
    'deploy/postgres-websockets.env',
  ])
    expect(read(name)).not.toContain(sample)
  const documents = YAML.parse(read('deploy/kubernetes.yaml')) as { kind: string; stringData?: Record<string, string> }[]
  expect(documents.map(({ kind }) => kind)).toEqual(['Secret', 'Deployment', 'Service', 'PodDisruptionBudget', 'Ingress'])
  expect(documents[0]?.stringData?.['jwt-secret']).toBe('')
})
