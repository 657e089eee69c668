import { expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import postgres from 'postgres'
import { parseEnvFile } from '../../lib/config/env-file.ts'
import { connect } from '../support/client.ts'
import { launch } from '../support/program.ts'
import { database, unique } from '../support/setup.ts'
import { token } from '../support/token.ts'

const root = resolve(import.meta.dir, '../..')
const sampleSecret = parseEnvFile(readFileSync(resolve(root, 'sample-env'), 'utf8')).PGWS_JWT_SECRET ?? ''

/** Processes of the operating system whose command line holds a text. */
const processes = (text: string): string[] =>
  spawnSync('ps', ['-eo', 'args'], { encoding: 'utf8' })
    .stdout.split('\n')
    .filter((line) => line.includes(text) && !line.includes('ps -eo'))

test('npm start serves the page on an embedded PostgreSQL, says what to do next, and leaves no process behind', async () => {
  const started = launch(
    { PGWS_JWT_SECRET: '', PGWS_HOST: '', PGWS_PORT: '0' },
    ['run', '--silent', 'start', '--prefix', root],
    'npm',
  )
  const port = await started.bound()
  await started.logged(/info: listening /)
  expect(started.stdout()).toContain(`http://localhost:${port}`)
  const uri = /psql "(postgres:.*)"/.exec(started.stdout())?.[1] ?? ''
  const statement = /select pg_notify\(.*\);/.exec(started.stdout())?.[0] ?? ''
  expect(await (await fetch(`http://localhost:${port}/`)).text()).toContain('<h1>postgres-websockets</h1>')
  // All of 127.0.0.0/8 is this machine, and only the one address is bound.
  await expect(fetch(`http://127.0.0.2:${port}/`)).rejects.toThrow()

  const key = new TextEncoder().encode(sampleSecret)
  await using client = await connect(`ws://localhost:${port}/chat/${await token({ mode: 'rw' }, key)}`)
  await using meta = await connect(`ws://localhost:${port}/server-info/${await token({ mode: 'r' }, key)}`)
  const sql = postgres(uri, { max: 1 })
  await sql.unsafe(statement)
  expect(await client.next()).toContain('hello from SQL')
  expect(await meta.next()).toContain('ConnectionOpen')

  const { url } = await (await fetch(`http://localhost:${port}/start.json`)).json()
  const ofPage = { headers: { Origin: `http://localhost:${port}` } }
  const given = await (await fetch(`${url}token?name=Ada`, ofPage)).json()
  await using orders = await connect(`ws://localhost:${port}/orders/${given.token}`)
  await fetch(`${url}orders`, { method: 'POST', ...ofPage })
  expect(JSON.parse(await orders.next())).toMatchObject({ op: 'INSERT', table: 'public.orders', new: { status: 'new' } })

  const name = unique('kept by npm start')
  await sql`select pgws.publish('chat', ${name})`
  expect(await client.next()).toBe(name)
  client.send('sent')
  expect(await client.next()).toContain('"payload":"sent"')
  await using later = await connect(`ws://localhost:${port}/chat/${await token({ mode: 'r' }, key)}?last=2`)
  expect(await later.next()).toBe(name)
  expect(await later.next()).toContain('"payload":"sent"')
  await sql.end()

  const ours = (): string[] => [...processes(resolve(root, 'main.ts')), ...processes(`port=${new URL(uri).port}`)]
  expect(ours()).not.toBeEmpty()
  started.signal('SIGINT')
  await started.exited
  expect(await client.closed).toEqual({ code: 1001, reason: expect.any(String) })
  expect(ours()).toBeEmpty()
})

test('npm start takes the database of PGWS_DB_URI, and makes no table there', async () => {
  const started = launch(
    { PGWS_DB_URI: database().uri, PGWS_JWT_SECRET: '', PGWS_HOST: '', PGWS_PORT: '0' },
    ['run', '--silent', 'start', '--prefix', root],
    'npm',
  )
  await started.logged(new RegExp(`info: listening .*server=127.0.0.1:${database().port}`))
  const port = await started.bound()
  expect(await (await fetch(`http://localhost:${port}/start.json`)).json()).toMatchObject({ orders: false })
  expect(await started.stop()).toBe(0)
})
