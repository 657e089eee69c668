import { afterAll, beforeAll, expect, test } from 'bun:test'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { connect, payloadOf } from '../support/client.ts'
import { freePort } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { token } from '../support/token.ts'

const fixture = (name: string): string => resolve(import.meta.dir, '../fixtures', name)
const folder = mkdtempSync(join(tmpdir(), 'pgws-nginx-'))
const ca = readFileSync(fixture('authority.crt'), 'utf8')

let program: Program
let nginx: ChildProcess
let port: number

beforeAll(async () => {
  program = await start({ PGWS_DB_URI: database().uri })
  port = await freePort()
  // The snippet as it is, but for addresses, names and certificates.
  const snippet = readFileSync(resolve(import.meta.dir, '../../deploy/nginx.conf'), 'utf8')
    .replace('127.0.0.1:3000', `127.0.0.1:${program.port}`)
    .replace('listen 443 ssl', `listen 127.0.0.1:${port} ssl`)
    .replace('example.org;', 'localhost;')
    .replace(/\/etc\/ssl\/certs\/\S+\.crt/, fixture('server.crt'))
    .replace(/\/etc\/ssl\/private\/\S+\.key/, fixture('server.key'))
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${folder}/${name};`)
    .join(' ')
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; pid ${folder}/pid; error_log ${folder}/error.log; events {}\nhttp { access_log ${folder}/access.log; ${paths}\n${snippet}\n}`,
  )
  nginx = spawn('nginx', ['-p', folder, '-e', join(folder, 'error.log'), '-c', join(folder, 'nginx.conf')], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  while (!(await answers())) await new Promise((resolve) => setTimeout(resolve, 20))
})
afterAll(async () => {
  nginx.kill('SIGTERM')
  await new Promise((gone) => nginx.once('exit', gone))
  await program.stop()
  rmSync(folder, { recursive: true })
})

const answers = (): Promise<boolean> =>
  new Promise((done) => {
    const socket = connectSocket(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      done(true)
    })
    socket.once('error', () => done(false))
  })

test('behind nginx, which ends TLS, clients chat with their tokens in the path or as a subprotocol', async () => {
  const given = await token({ mode: 'rw', channels: ['chat'] })
  await using one = await connect(`wss://localhost:${port}/ws/chat/${given}`, { ca })
  await using two = await connect(`wss://localhost:${port}/ws/chat`, { ca, protocols: ['pgws', `pgws.token.${given}`] })
  expect(two.protocol).toBe('pgws')
  one.send('hello')
  expect([payloadOf(await one.next()), payloadOf(await two.next())]).toEqual(['hello', 'hello'])
})

test('a refusal comes through with its reason', async () => {
  const answer = await fetch(`https://localhost:${port}/ws/chat/none`, {
    headers: { Upgrade: 'websocket', Connection: 'Upgrade' },
    tls: { ca },
  })
  expect(answer.status).toBe(401)
  expect(await answer.text()).toBe('Malformed token')
})

test('a token that travels as a subprotocol is in no log of the proxy', async () => {
  const given = await token({ mode: 'rw', channels: ['quiet'] })
  const client = await connect(`wss://localhost:${port}/ws/quiet`, { ca, protocols: ['pgws', `pgws.token.${given}`] })
  await client.close()
  const log = () => readFileSync(join(folder, 'access.log'), 'utf8')
  while (!log().includes('/ws/quiet')) await new Promise((resolve) => setTimeout(resolve, 20))
  expect(log()).not.toContain(given.split('.')[2] ?? given)
})
