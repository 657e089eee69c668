/** The page about what the database decides does what it says of messages: its recipe is run as it stands there. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { blocksFor } from '../support/pages.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { token } from '../support/token.ts'

const { block, left } = blocksFor('message-docs')

let server: Postgres
let owner: postgres.Sql
let program: Program

beforeAll(async () => {
  server = await startPostgres()
  owner = postgres(server.uri, { max: 1, onnotice: () => undefined })
  await owner.unsafe(
    `create role websockets login password '${server.password}'; create role stranger; grant stranger to websockets`,
  )
  await owner.unsafe(block('sql', 'create function chat.say'))
  const settings = [...block('sh', 'chat.say').matchAll(/(PGWS_\w+)=(\S+)/g)].map(([, name = '', value = '']) => [name, value])
  program = await start({ PGWS_DB_URI: server.uri.replace('//postgres:', '//websockets:'), ...Object.fromEntries(settings) })
})
afterAll(async () => {
  await program.stop()
  await owner.end({ timeout: 1 })
  await server.stop()
})

const say = async (text: string, claims: object): Promise<readonly [number, string]> => {
  const url = `${program.origin.replace('ws:', 'http:')}/room/${await token({ mode: 'w', ...claims })}`
  const answer = await fetch(url, { method: 'POST', body: text })
  return [answer.status, await answer.text()]
}

test('a chat stores and limits what its members say, and strangers say nothing', async () => {
  const ada = { sub: 'ada', role: 'member' }
  const hostile = `'); drop table chat.messages; -- {"sub":"bob"} \\ $$ é`
  expect(await say(hostile, ada)).toEqual([204, ''])
  expect(await say('x'.repeat(201), ada)).toEqual([400, expect.stringContaining('check constraint')])
  expect(await say('', ada)).toEqual([400, expect.stringContaining('check constraint')])
  for (const text of ['2', '3', '4', '5']) expect(await say(text, ada)).toEqual([204, ''])
  expect(await say('6', ada)).toEqual([400, 'not so fast'])
  expect(await say('hi', { sub: "bo'b", role: 'member' })).toEqual([204, ''])
  expect(await say('hi', { sub: 'eve', role: 'stranger' })).toEqual([403, expect.stringContaining('permission denied')])
  expect(await say('hi', { sub: 'eve', role: 'postgres' })).toEqual([403, expect.stringContaining('permission denied')])
  expect((await say('hi', { sub: 'eve' }))[0]).toBe(403)
  const rows = await owner`select author, said from chat.messages order by at`
  expect(rows.map(({ author, said }) => [author, said])).toEqual([
    ['ada', hostile],
    ...['2', '3', '4', '5'].map((text) => ['ada', text]),
    ["bo'b", 'hi'],
  ])
})

test('every block that is marked for it was run', () => {
  expect(left()).toEqual([])
})
