/** `--install` and `--print-sql`: into what they install, who may, and what is told. */
import { describe, expect, test } from 'bun:test'
import postgres from 'postgres'
import { faultOfSchema, schema, schemaVersion } from '../../lib/database/schema/install.ts'
import { launch } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'

/** A database of its own on the shared server. */
async function empty(): Promise<{
  readonly uri: string
  readonly session: postgres.Sql
  [Symbol.asyncDispose](): Promise<void>
}> {
  const name = unique('install').replaceAll('-', '_')
  await sql().unsafe(`create database ${name}`)
  const uri = database().uri.replace(/\/postgres$/, `/${name}`)
  const session = postgres(uri, { max: 1, onnotice: () => undefined })
  return {
    uri,
    session,
    async [Symbol.asyncDispose]() {
      await session.end()
      await sql().unsafe(`drop database ${name} with (force)`)
    },
  }
}

async function install(uri: string): Promise<{ readonly code: unknown; readonly said: string }> {
  // Of the variables, it needs the database alone.
  const program = launch({ PGWS_DB_URI: uri, PGWS_JWT_SECRET: undefined }, ['--install'])
  const code = await program.exited
  return { code, said: program.stdout() + program.stderr() }
}

const version = async (session: postgres.Sql): Promise<unknown> => (await session`select pgws.version()`)[0]?.version

describe('--install', () => {
  test('creates the schema in an empty database, says so, and keeps all that is there when it runs again', async () => {
    await using place = await empty()
    expect(await install(place.uri)).toEqual({ code: 0, said: `installed the journal's schema pgws, version ${schemaVersion}\n` })
    await place.session.unsafe("select pgws.begin_session('1 hour'); select pgws.publish('chat', 'kept'); select pgws.look()")
    await place.session.unsafe('grant execute on function pgws.publish to pg_monitor')
    expect(await install(place.uri)).toEqual({
      code: 0,
      said: `the journal's schema pgws has version ${schemaVersion} already\n`,
    })
    const rows = await place.session`select payload from pgws.history('chat')`
    expect(rows.map(({ payload }) => payload)).toEqual(['kept'])
    const [found] =
      await place.session`select retention::text, has_function_privilege('pg_monitor', 'pgws.publish(text, text, text)', 'execute') as granted from pgws.settings`
    expect(found).toEqual({ retention: '01:00:00', granted: true })
    expect(await version(place.session)).toBe(schemaVersion)
  })

  test('can run many times at once', async () => {
    await using place = await empty()
    const runs = await Promise.all(Array.from({ length: 4 }, () => install(place.uri)))
    expect(runs.map(({ code }) => code)).toEqual([0, 0, 0, 0])
    expect(await version(place.session)).toBe(schemaVersion)
  })

  test('upgrades an older version, also for the role of a server, and leaves a newer one alone', async () => {
    await using place = await empty()
    await install(place.uri)
    await place.session.unsafe('grant execute on all functions in schema pgws to pg_monitor')
    await place.session.unsafe('update pgws.settings set version = 1; drop function pgws.publish_batch; drop table pgws.sent')
    expect(await faultOfSchema(asConnection(place.session))).toContain('--install')
    expect((await install(place.uri)).said).toBe(`upgraded the journal's schema pgws from version 1 to ${schemaVersion}\n`)
    const [found] = await place.session`select has_function_privilege('pg_monitor', p.oid, 'execute') as server,
        has_function_privilege('pg_read_all_data', p.oid, 'execute') as public
      from pg_proc p where p.proname = 'publish_batch'`
    expect(found).toEqual({ server: true, public: false })
    await place.session`select pgws.publish_batch(gen_random_uuid(), 1, '{chat}', '{x}', '{}')`
    await place.session`update pgws.settings set version = 1000`
    const { code, said } = await install(place.uri)
    expect({ code, said }).toEqual({ code: 1, said: expect.stringContaining('has version 1000') })
    expect(said).toContain('install with the newer program')
    expect(await version(place.session)).toBe(1000)
  })

  test('says what a role lacks that may not create schemas, and changes nothing', async () => {
    await using place = await empty()
    const role = unique('role').replaceAll('-', '_')
    await sql().unsafe(`create role ${role} login password 'x'`)
    const { code, said } = await install(place.uri.replace(/\/\/[^@]+@/, `//${role}:x@`))
    expect({ code, said }).toEqual({ code: 1, said: expect.stringContaining('permission denied for database') })
    expect(said).toContain('grant the role "create" on the database')
    expect(said).toContain('--print-sql')
    const [found] = await place.session`select to_regnamespace('pgws') as schema`
    expect(found?.schema).toBeNull()
  })

  test('needs PGWS_DB_URI, and says so', async () => {
    const program = launch({}, ['--install'])
    expect(await program.exited).toBe(1)
    expect(program.stderr()).toContain('PGWS_DB_URI')
  })
})

test('--print-sql prints the same SQL, for psql', async () => {
  await using place = await empty()
  const program = launch({ PGWS_JWT_SECRET: undefined }, ['--print-sql'])
  expect(await program.exited).toBe(0)
  expect(program.stdout()).toBe(`${schema.trimEnd()}\n`)
  await place.session.unsafe(program.stdout())
  expect(await version(place.session)).toBe(schemaVersion)
})

test('a database without the schema, or whose role may not use it, is a fault that says what to do', async () => {
  await using place = await empty()
  expect(await faultOfSchema(asConnection(place.session))).toContain(
    'no schema pgws: install it with postgres-websockets --install',
  )
  await place.session.unsafe(schema)
  expect(await faultOfSchema(asConnection(place.session))).toBeUndefined()
})

const asConnection = (session: postgres.Sql) => ({ query: async (statement: string) => [...(await session.unsafe(statement))] })
