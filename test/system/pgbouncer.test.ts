import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, payloadOf } from '../support/client.ts'
import { freePort } from '../support/postgres.ts'
import { launch, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { token } from '../support/token.ts'

const folder = mkdtempSync(join(tmpdir(), 'pgws-pgbouncer-'))
const poolers: ChildProcess[] = []
const uris: Record<string, string> = {}

beforeAll(async () => {
  chmodSync(folder, 0o755)
  for (const mode of ['transaction', 'session']) {
    const port = await freePort()
    const { password, port: target } = database()
    writeFileSync(join(folder, 'users'), `"postgres" "${password}"\n`)
    writeFileSync(
      join(folder, `${mode}.ini`),
      `[databases]\npostgres = host=127.0.0.1 port=${target} user=postgres password=${password}
[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = ${port}\npool_mode = ${mode}\nauth_type = plain\nauth_file = ${folder}/users
unix_socket_dir =\nignore_startup_parameters = extra_float_digits,options\n`,
    )
    const pooler = spawn('pgbouncer', ['-u', 'nobody', join(folder, `${mode}.ini`)], { stdio: ['ignore', 'ignore', 'pipe'] })
    poolers.push(pooler)
    await new Promise<void>((up) => pooler.stderr.on('data', (chunk) => String(chunk).includes('process up') && up()))
    uris[mode] = `postgres://postgres:${password}@127.0.0.1:${port}/postgres`
  }
})
afterAll(async () => {
  for (const pooler of poolers) {
    pooler.kill('SIGTERM')
    pooler.kill('SIGINT')
    await new Promise((gone) => pooler.once('exit', gone))
  }
  rmSync(folder, { recursive: true })
})

describe('a pooler in transaction mode', () => {
  test('is recognised and named at the start, which ends with exit 1', async () => {
    const program = launch({ PGWS_DB_URI: uris.transaction, PGWS_RETRIES: '1' })
    expect(await program.exited).toBe(1)
    expect(program.stderr()).toContain('pooler in transaction mode')
  })
  test('is recognised and named by --check', async () => {
    const program = launch({ PGWS_DB_URI: uris.transaction }, ['--check'])
    expect(await program.exited).toBe(1)
    expect(program.stdout()).toMatch(/^✗ LISTEN and NOTIFY: .*pooler in transaction mode/m)
  })
})

test('a pooler in session mode serves', async () => {
  await using program = await start({ PGWS_DB_URI: uris.session, PGWS_CHECK_LISTENER_INTERVAL: '500' })
  await using client = await connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)
  client.send('through the pooler')
  expect(payloadOf(await client.next())).toBe('through the pooler')
})
