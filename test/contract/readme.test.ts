import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import postgres from 'postgres'
import { connect } from '../support/client.ts'
import { launch, type Program, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { secret, token } from '../support/token.ts'

const root = resolve(import.meta.dir, '../..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')

/** The README's example that holds a text. */
function example(language: string, text: string): string {
  const found = [...readme.matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, 'g'))]
    .map(([, code = '']) => code)
    .find((code) => code.includes(text))
  if (!found) throw new Error(`the README has no ${language} example with ${text}`)
  return found
}

let program: Program
let admin: postgres.Sql
const uri = () => database().uri.replace(/postgres$/, 'readme')

beforeAll(async () => {
  const first = postgres(database().uri, { max: 1 })
  await first`create database readme`
  await first.end()
  admin = postgres(uri(), { max: 1, onnotice: () => undefined })
  program = await start({ PGWS_DB_URI: uri() })
})
afterAll(async () => {
  await admin.end()
  await program.stop()
})

test('the trigger tells of each new row', async () => {
  await admin.unsafe(example('sql', 'create trigger'))
  await using client = await connect(`${program.origin}/orders/${await token({ mode: 'r' })}`)
  await admin`insert into orders (item) values ('tea')`
  expect(JSON.parse(JSON.parse(await client.next()).payload)).toEqual({ id: 1, item: 'tea' })
})

test('the statement sends from SQL', async () => {
  await using client = await connect(`${program.origin}/chat/${await token({ mode: 'r' })}`)
  await admin.unsafe(example('sql', 'hello from SQL'))
  expect(JSON.parse(await client.next())).toEqual({ event: 'WebsocketMessage', channel: 'chat', payload: 'hello from SQL' })
})

test('the function of PostgREST issues tokens that this server takes', async () => {
  await admin.unsafe(example('sql', 'websocket_token'))
  const issued = await admin.begin(async (sql) => {
    await sql`select set_config('app.jwt_secret', ${secret}, true), set_config('request.jwt.claims', '{"sub":"ada"}', true)`
    return sql`select websocket_token() ->> 'token' as token`
  })
  await using client = await connect(`${program.origin}/${issued[0]?.token}`)
  client.send('signed by SQL')
  expect(JSON.parse(await client.next())).toMatchObject({ claims: { sub: 'ada' }, channel: 'chat', payload: 'signed by SQL' })
})

test('the consumer stores what clients send', async () => {
  const folder = join(root, 'dist', 'consumer-test')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'consumer.mjs'), example('js', 'consumer.mjs'))
  const consumer = launch({ PGWS_DB_URI: uri() }, [join(folder, 'consumer.mjs')], 'node')
  await consumer.printed(/storing messages/)
  await using client = await connect(`${program.origin}/chat/${await token({ mode: 'rw', sub: 'ada' })}`)
  const stored = new Promise<void>((done) => {
    const look = async (): Promise<void> => {
      const [row] = await admin`select channel, sender ->> 'sub' as sub, payload from messages`
      if (!row) return void setTimeout(look, 20)
      expect(row).toEqual({ channel: 'chat', sub: 'ada', payload: 'to be stored' } as never)
      done()
    }
    void look()
  })
  client.send('to be stored')
  await stored
  await consumer.stop()
  rmSync(folder, { recursive: true })
})

test('every file and script that it names is there', () => {
  for (const [, script = ''] of readme.matchAll(/`npm run ([a-z:]+)`/g)) {
    expect(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).scripts).toHaveProperty([script])
  }
  for (const [, path = ''] of readme.matchAll(/`((?:test|deploy|bench)\/[^`\s]+)`/g))
    expect(readFileSync(join(root, path)).length).toBeGreaterThan(0)
  for (const [, path = ''] of readme.matchAll(/\]\((?!http)([^)#]+)\)/g))
    expect(readFileSync(join(root, path)).length).toBeGreaterThan(0)
})
