import { afterAll, beforeAll, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { YAML } from 'bun'
import postgres from 'postgres'
import { connect } from '../support/client.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { start } from '../support/program.ts'
import { token } from '../support/token.ts'

const root = resolve(import.meta.dir, '../..')
const read = (name: string): string => readFileSync(join(root, name), 'utf8')

interface Service {
  readonly environment: Readonly<Record<string, string>>
  readonly volumes?: readonly string[]
  readonly ports?: readonly string[]
}
// The file is the project's own; what it lacks fails the tests below.
const { services } = YAML.parse(read('compose.yaml')) as {
  services: Record<'database' | 'secret' | 'rest' | 'websockets', Service>
}

let server: Postgres
let admin: postgres.Sql
let secret = ''

/** A service's connection string, on the tests' own server. */
const reach = (uri = ''): string => uri.replace('@database:5432', `@127.0.0.1:${server.port}`)

beforeAll(async () => {
  server = await startPostgres()
  const first = postgres(server.uri, { max: 1 })
  await first`create database app`
  await first.end()
  admin = postgres(server.uri.replace(/postgres$/, 'app'), { max: 1 })
  // What the database runs at its first start, in its order.
  const scripts = services.database.volumes?.map((volume) => volume.split(':')[0] ?? '') ?? []
  for (const name of scripts) await admin.unsafe(read(name))
  const [row] = await admin`select value from websockets.secret`
  secret = row?.value
})
afterAll(async () => {
  await admin.end()
  await server.stop()
})

test('every port is on this machine alone, and no secret stands in the file', () => {
  for (const { ports = [] } of Object.values(services)) for (const port of ports) expect(port).toStartWith('127.0.0.1:')
  expect(services.rest.environment.PGRST_JWT_SECRET).toBe('@/secrets/jwt-secret')
  expect(services.websockets.environment.PGWS_JWT_SECRET).toBe('@/secrets/jwt-secret')
  expect(secret).toHaveLength(64)
})

test('PostgREST connects as an ordinary role, reads as anyone, and writes and issues tokens only for who is logged in', async () => {
  const sql = postgres(reach(services.rest.environment.PGRST_DB_URI), { max: 1 })
  const as = (role: string, statement: string) =>
    sql.begin(async (transaction) => {
      await transaction.unsafe(`set local role ${role}`)
      await transaction`select set_config('request.jwt.claims', '{"sub":"ada"}', true)`
      return [...(await transaction.unsafe(statement))]
    })
  const [rights] = await sql`select rolsuper or rolcreaterole or rolcreatedb or rolbypassrls as special
    from pg_roles where rolname = current_user`
  expect(rights?.special).toBe(false)
  const anonymous = services.rest.environment.PGRST_DB_ANON_ROLE ?? ''
  expect(await as(anonymous, 'select * from api.orders')).toEqual([])
  for (const statement of [`insert into api.orders (item) values ('tea')`, 'select api.websocket_token()'])
    await expect(as(anonymous, statement)).rejects.toThrow('permission denied')
  const [issued] = await as('web_user', `select api.websocket_token() ->> 'token' as token`)
  await using program = await start({ PGWS_DB_URI: reach(services.websockets.environment.PGWS_DB_URI), PGWS_JWT_SECRET: secret })
  await using client = await connect(`${program.origin}/${issued?.token}`)
  await using orders = await connect(
    `${program.origin}/orders/${await token({ mode: 'r', channels: ['orders'] }, new TextEncoder().encode(secret))}`,
  )
  client.send('hello')
  expect(JSON.parse(await client.next())).toMatchObject({ claims: { sub: 'ada' }, payload: 'hello' })
  await as('web_user', `insert into api.orders (item) values ('tea')`)
  expect(JSON.parse(await orders.next())).toMatchObject({ channel: 'orders', payload: { operation: 'INSERT', id: 1 } })
  await sql.end()
})

test('no file of a deployment holds a secret that works', () => {
  const sample = /PGWS_JWT_SECRET="(\w+)"/.exec(read('sample-env'))?.[1] ?? ''
  for (const name of ['compose.yaml', 'deploy/compose.sql', 'deploy/kubernetes.yaml', 'deploy/postgres-websockets.env'])
    expect(read(name)).not.toContain(sample)
  const documents = YAML.parse(read('deploy/kubernetes.yaml')) as { kind: string; stringData?: Record<string, string> }[]
  expect(documents.map(({ kind }) => kind)).toEqual(['Secret', 'Deployment', 'Service', 'PodDisruptionBudget', 'Ingress'])
  expect(documents[0]?.stringData?.['jwt-secret']).toBe('')
})
