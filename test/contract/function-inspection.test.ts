import { beforeAll, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { parseConninfo } from '../../lib/database/conninfo.ts'
import { createDatabase } from '../../lib/database/database.ts'
import { FunctionFault, mustBeCallable } from '../../lib/rules/inspection.ts'
import { database, sql, unique } from '../support/setup.ts'

const schema = unique('Rules "s"').replaceAll('-', ' ')
const role = unique('caller')
const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`

beforeAll(async () => {
  await sql().unsafe(`create role "${role}" login password '${database().password}'; create schema ${quoted(schema)};
    create function ${quoted(schema)}.good(text) returns text language sql as 'select null::text';
    create function ${quoted(schema)}.good(integer) returns text language sql as 'select null::text';
    create function ${quoted(schema)}.number(integer) returns text language sql as 'select null::text';
    create function ${quoted(schema)}.flag(text) returns boolean language sql as 'select true';
    create function ${quoted(schema)}.many(text) returns setof text language sql as 'select null::text';
    create procedure ${quoted(schema)}.proc(text) language sql as '';
    create aggregate ${quoted(schema)}.total(text) (sfunc = textcat, stype = text);
    create function ${quoted(schema)}.secret(text) returns text language sql as 'select null::text';
    revoke execute on function ${quoted(schema)}.secret(text) from public`)
})

async function inspect(name: string, user = 'postgres', isOwnCall = true): Promise<string> {
  const uri = new URL(database().uri)
  uri.username = user
  const conninfo = parseConninfo(uri.href, {}, readFileSync, 'nobody')
  const session = await createDatabase(() => conninfo, 0).connect()
  const inspected = { variable: 'PGWS_X', name: `${quoted(schema)}."${name}"`, parameters: 'text', isOwnCall }
  try {
    return await mustBeCallable(session, inspected)
  } catch (error) {
    if (!(error instanceof FunctionFault)) throw error
    return error.message
  } finally {
    session.close()
  }
}

test('a function that fits is found among others of its name', async () => {
  expect(await inspect('good')).toBe(`${quoted(schema)}.good(text) returns text`)
})

test.each([
  ['missing', 'a function that is not there: create function'],
  ['number', 'which is (integer) returns text: it must be a function (text) returns text'],
  ['flag', 'which is (text) returns boolean: it must be'],
  ['many', 'which is (text) returns SETOF text: it must be'],
  ['proc', 'which is (text) returns nothing: it must be'],
  ['total', 'which is (text) returns text: it must be'],
])('%s does not fit, and is told what does', async (name, told) => {
  expect(await inspect(name)).toContain(`PGWS_X names ${quoted(schema)}.${name}, ${told}`)
})

test('the grants that are missing are told as SQL, and giving them is enough', async () => {
  const told = await inspect('secret', role)
  const [, grants = ''] = told.split(' may not call: ')
  expect(grants).toBe(
    `grant usage on schema ${quoted(schema)} to "${role}"; grant execute on function ${quoted(schema)}.secret(text) to "${role}"`,
  )
  expect(await inspect('secret', role, false)).toContain('returns text')
  await sql().unsafe(grants)
  expect(await inspect('secret', role)).toContain('returns text')
})
