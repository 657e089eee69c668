/** The page about what the database decides does what it says: its blocks are run as they stand there. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { connect, handshake } from '../support/client.ts'
import { blocksFor } from '../support/pages.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { token } from '../support/token.ts'

const { block, left } = blocksFor('database-docs')

let server: Postgres
let owner: postgres.Sql
let program: Program

beforeAll(async () => {
  server = await startPostgres()
  owner = postgres(server.uri, { max: 1, onnotice: () => undefined })
  await owner.unsafe(`create role websockets login password '${server.password}'; create role stranger;`)
  await owner.unsafe(block('sql', 'create policy own_rows'))
  await owner.unsafe(block('sql', 'create trigger changed'))
  const variables = [...block('sh', 'PGWS_AUTHORIZE_FUNCTION=').matchAll(/(PGWS_\w+)=(\S+)/g)].map(([, name, value]) => [
    name,
    value,
  ])
  const uri = server.uri.replace('//postgres:', '//websockets:')
  program = await start({ PGWS_DB_URI: uri, ...Object.fromEntries(variables) })
  await owner`insert into rooms.members values ('tea', 'ann', true), ('tea', 'bob', false), ('x'' or true --', 'eve', true)`
})
afterAll(async () => {
  await program.stop()
  await owner.end({ timeout: 1 })
  await server.stop()
})

const path = async (room: string, sub: unknown, role = 'member') =>
  `/${encodeURIComponent(room)}/${await token({ mode: 'rw', sub: sub as string, role })}`

test('members come in, as what they are, and are out as soon as they are taken out', async () => {
  await using ann = await connect(program.origin + (await path('tea', 'ann')))
  await using bob = await connect(program.origin + (await path('tea', 'bob')))
  bob.send('may not')
  ann.send('may')
  expect(JSON.parse(await bob.next())).toMatchObject({ payload: 'may' })
  await owner`delete from rooms.members where person = 'bob'`
  expect((await bob.closed).code).toBe(3003)
  ann.send('still there')
  expect((await ann.take(2)).map((text) => JSON.parse(text).payload)).toEqual(['may', 'still there'])
})

test.each([
  ['tea', 'eve', 'member'],
  ["tea' or true --", 'eve', 'member'],
  ['tea', "ann' or true --", 'member'],
  ['tea', { sub: 'ann' }, 'member'],
  ['tea', undefined, 'member'],
  ['tea', 'ann', 'stranger'],
  ['tea', 'ann', 'postgres'],
  ['tea', 'ann', 'member; reset role'],
])('room %p for %p of role %p stays closed', async (room, sub, role) => {
  expect((await handshake(program.port, await path(room, sub, role))).status).toBe(403)
})

test('a member that is no user of the schema may not call the function itself', async () => {
  await expect(
    owner.begin(async (sql) => {
      await sql`set local role stranger`
      await sql`select rooms.may('tea')`
    }),
  ).rejects.toThrow('permission denied for schema rooms')
})

test('each block of the page was run', () => {
  expect(left()).toEqual([])
})
