/** What docs/database.md says of connections, run from the page itself. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import type postgres from 'postgres'
import { connect, handshake } from '../support/client.ts'
import { type JournalDatabase, startJournal } from '../support/journal.ts'
import { blocksFor } from '../support/pages.ts'
import { type Program, start } from '../support/program.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

const { block, left } = blocksFor('connections-docs')

let journal: JournalDatabase
let program: Program

beforeAll(async () => {
  journal = await startJournal()
  for (const role of ['websockets', 'web_user', 'stranger'])
    await journal.sql.unsafe(`create role ${role} login password '${journal.server.password}'`)
  for (const text of ['grant execute on function pgws.version', 'function room_members', 'function log_out_everywhere'])
    await journal.sql.unsafe(block('sql', text))
  program = await start({ PGWS_DB_URI: journal.uri.replace('//postgres:', '//websockets:'), PGWS_CONNECTIONS: 'True' })
  await program.logged(/info: writing connections/)
})
afterAll(async () => {
  await program.stop()
  await journal.stop()
})

/** As PostgREST calls a function: the claims of a verified token, and its role. */
async function call(statement: string, claims: string | undefined): Promise<postgres.Row[]> {
  const session = journal.session('web_user')
  const rows = await session.begin(async (sql) => {
    if (claims !== undefined) await sql`select set_config('request.jwt.claims', ${claims}, true)`
    return sql.unsafe(statement)
  })
  return [...rows]
}

const reader = async (sub: string, channel = 'room') => connect(`${program.origin}/${channel}/${await token({ sub, mode: 'r' })}`)

test('the members of a room are shown to its members alone', async () => {
  await using _anna = await reader('anna')
  await using _bob = await reader('bob')
  await using _carl = await reader('carl', 'elsewhere')
  const members = async (claims: string | undefined) =>
    (await call("select name from room_members('room') order by name", claims)).map(({ name }) => name)
  await until(async () => (await members('{"sub":"anna"}')).length === 2)
  expect(await members('{"sub":"anna"}')).toEqual(['anna', 'bob'])
  expect(await members('{"sub":"carl"}')).toEqual([])
  expect(await members('{"sub":"%\' or true --"}')).toEqual([])
  expect(await members(undefined)).toEqual([])
  await expect(journal.session('stranger')`select room_members('room')`).rejects.toThrow('permission denied')
  await expect(call('select * from pgws.connections', '{"sub":"anna"}')).rejects.toThrow('permission denied')
})

test('who logs out is out everywhere, and nobody else', async () => {
  await using bob = await reader('bob')
  const anna = await reader('anna')
  for (const claims of [undefined, '', '{}', '{"sub":null}'])
    await expect(call('select log_out_everywhere()', claims)).rejects.toThrow('not logged in')
  await call('select log_out_everywhere()', '{"sub":"\\"}, {\\"sub\\": \\"bob"}')
  await call('select log_out_everywhere()', '{"sub":"anna"}')
  expect(await anna.closed).toEqual({ code: 3002, reason: 'Token revoked' })
  const again = await handshake(program.port, `/room/${await token({ sub: 'anna', mode: 'r' })}`)
  expect([again.status, again.body]).toEqual([401, 'Token revoked'])
  expect((await handshake(program.port, `/room/${await token({ sub: 'bob', mode: 'r' })}`)).status).toBe(101)
  expect(bob.waiting).toBe(0)
  await expect(journal.session('stranger')`select log_out_everywhere()`).rejects.toThrow('permission denied')
  await expect(call("select pgws.revoke('{}', now())", '{"sub":"anna"}')).rejects.toThrow('permission denied')
})

test('each block for this test was run', () => expect(left()).toEqual([]))
