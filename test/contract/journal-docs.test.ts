/** The page about the journal does what it says: its blocks are run as they stand there. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { schemaVersion } from '../../lib/database/schema/install.ts'
import { type Client, connect } from '../support/client.ts'
import { blocksFor } from '../support/pages.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { commandLine, type Environment, launch } from '../support/program.ts'
import { token } from '../support/token.ts'

const { block, left } = blocksFor('journal-docs')

let server: Postgres
let owner: postgres.Sql
let app: postgres.Sql
let program: ReturnType<typeof launch>
let origin: string
const folder = mkdtempSync(join(tmpdir(), 'pgws-docs-'))

const session = (role: string): postgres.Sql =>
  postgres(server.uri, { max: 1, username: role, onnotice: () => undefined, fetch_types: false })

/** The program is found by its name, and needs no variable but this one. */
const env = (role: string): Environment => ({
  PATH: `${folder}:${process.env.PATH}`,
  PGWS_DB_URI: server.uri.replace('//postgres:', `//${role}:`),
})

const shell = (code: string): { readonly status: number | null; readonly stdout: string; readonly stderr: string } =>
  spawnSync('sh', ['-c', code], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...process.env, ...env('postgres') } as NodeJS.ProcessEnv,
  })

const reader = async (channel: string, query = ''): Promise<Client> =>
  connect(`${origin}/${channel}/${await token({ mode: 'r' })}${query}`)

beforeAll(async () => {
  writeFileSync(join(folder, 'postgres-websockets'), `#!/bin/sh\nexec ${commandLine.join(' ')} "$@"\n`, { mode: 0o755 })
  server = await startPostgres({ settings: { max_connections: '50' } })
  owner = session('postgres')
  for (const role of ['app', 'websockets', 'stranger'])
    await owner.unsafe(`create role ${role} login password '${server.password}'`)
  const installed = shell(block('sh', '--install'))
  expect(installed).toMatchObject({ status: 0, stdout: `installed the journal's schema pgws, version ${schemaVersion}\n` })
  await owner.unsafe(block('sql', 'grant execute on all functions'))
  program = launch(env('websockets'), ['-c', block('sh', 'PGWS_JOURNAL=True')], 'sh')
  origin = `ws://127.0.0.1:${await program.bound()}`
  await program.logged(/info: listening /)
  app = session('app')
})
afterAll(async () => {
  program.signal('SIGTERM')
  await program.exited
  for (const sql of [owner, app]) await sql.end({ timeout: 1 })
  await server.stop()
  rmSync(folder, { recursive: true })
})

test('who was granted it publishes, and nobody else', async () => {
  const statement = block('sql', "publish('chat', 'hello')")
  await using client = await reader('chat')
  await app.unsafe(statement)
  expect(await client.next()).toBe('hello')
  const stranger = session('stranger')
  await expect(stranger.unsafe(statement)).rejects.toThrow('permission denied for schema pgws')
  await stranger.end()
})

test('a key publishes once', async () => {
  await using client = await reader('mail')
  for (const statement of block('sql', 'key =>').split('\n').filter(Boolean)) await app.unsafe(statement)
  await app`select pgws.publish('mail', 'next')`
  expect(await client.take(2)).toEqual(['your order has left', 'next'])
})

test('--print-sql writes what may be run by hand', async () => {
  expect(shell(block('sh', '--print-sql')).status).toBe(0)
  await owner.unsafe(readFileSync(join(folder, 'journal.sql'), 'utf8'))
})

describe('the trigger', () => {
  beforeAll(async () => {
    await owner.unsafe(block('sql', 'create trigger'))
    await owner`grant insert, select on orders to stranger`
  })

  test('publishes what a role without any right in pgws writes', async () => {
    await using client = await reader('orders')
    const stranger = session('stranger')
    await stranger.unsafe(block('sql', 'insert into orders'))
    await stranger.end()
    expect(`${await client.next()}\n`).toBe(block('json', '"op":"INSERT"'))
  })

  test('goes on behind the state of a page', async () => {
    await owner`grant select on orders to websockets`
    const websockets = session('websockets')
    const [row] = await websockets.unsafe(block('sql', 'pgws.position()'))
    await websockets.end()
    expect(row?.orders).toEqual([{ id: 1, item: 'tea' }])
    await owner`insert into orders (item) values ('coffee')`
    const given = await inPage(block('js', '?since='), { position: row?.position }, 1)
    expect(JSON.parse(given[0] ?? '')).toMatchObject({ op: 'INSERT', new: { id: 2, item: 'coffee' } })
  })
})

test('a page shows the last messages, and SQL has them too', async () => {
  await app`select pgws.publish('chat', 'and again')`
  await using client = await reader('chat', '?last=2')
  expect(await client.take(2)).toEqual(['hello', 'and again'])
  expect(await inPage(block('js', '?last='), {}, 2)).toEqual(['hello', 'and again'])
  const statement = block('sql', 'pgws.history(')
  expect((await owner.unsafe(statement)).map(({ payload }) => payload)).toEqual(['hello', 'and again'])
  await expect(app.unsafe(statement)).rejects.toThrow('permission denied for function history')
})

test('the size is told, to the server and not to who publishes', async () => {
  const [row] = await owner.unsafe(block('sql', 'pgws.holdings('))
  expect(row).toMatchObject({ messages: '6', size: expect.stringMatching(/kB$/), oldest: expect.any(String) })
  await expect(app.unsafe(block('sql', 'pgws.holdings('))).rejects.toThrow('permission denied for function holdings')
})

test('the schema can be dropped, and each block of the page was run', async () => {
  await owner.unsafe(block('sql', 'drop schema'))
  await owner`insert into orders (item) values ('without the journal')`
  expect(left()).toEqual([])
})

/** Runs a block as a page's script does, and returns what it was given. */
async function inPage(code: string, values: Readonly<Record<string, unknown>>, count: number): Promise<string[]> {
  const given: string[] = []
  const sockets: WebSocket[] = []
  class Socket extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url.replace('wss://example.org', origin), protocols)
      sockets.push(this)
    }
  }
  const globals = { ...values, WebSocket: Socket, token: await token({ mode: 'r' }) }
  await new Promise<void>((enough) => {
    const take = (text: string): void => {
      if (given.push(text) === count) enough()
    }
    new Function(...Object.keys(globals), 'show', 'apply', code)(...Object.values(globals), take, take)
  })
  for (const socket of sockets) socket.close()
  return given
}
