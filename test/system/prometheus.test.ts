import { expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { adminOf } from '../support/admin.ts'
import { connect, handshake } from '../support/client.ts'
import { launch, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { token } from '../support/token.ts'

const root = resolve(import.meta.dir, '../..')
const alerts = readFileSync(resolve(root, 'deploy/alerts.yaml'), 'utf8')

function promtool(args: readonly string[], input?: string): { readonly status: number | null; readonly output: string } {
  const { status, stdout, stderr } = spawnSync('promtool', args, { cwd: root, encoding: 'utf8', ...(input ? { input } : {}) })
  return { status, output: stdout + stderr }
}

test('promtool accepts /metrics without a word, and the alert rules read metrics that are there', async () => {
  const env = { PGWS_DB_URI: database().uri, PGWS_ADMIN_PORT: '0', PGWS_JOURNAL: 'True' }
  expect(await launch(env, ['--install']).exited).toBe(0)
  await using program = await start(env)
  const client = await connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)
  client.send('x')
  await client.next()
  await client.close()
  await handshake(program.port, '/x')
  const admin = await adminOf(program)
  const metrics = await (await fetch(`${admin}/metrics`)).text()
  expect(promtool(['check', 'metrics'], metrics)).toEqual({ status: 0, output: '' })
  const read = [...alerts.matchAll(/expr: .*?(pgws_[a-z_]+)/g)].map(([, name = '']) => name)
  expect(read).toHaveLength(9)
  for (const name of read) expect(metrics).toMatch(new RegExp(`^${name}[ {]`, 'm'))
})

test('promtool accepts the alert rules, and each one fires when it is due and not before', () => {
  expect(promtool(['check', 'rules', 'deploy/alerts.yaml'])).toMatchObject({ status: 0 })
  expect(promtool(['test', 'rules', 'test/system/alerts.yaml'])).toMatchObject({ status: 0 })
  const tested = readFileSync(resolve(root, 'test/system/alerts.yaml'), 'utf8')
  for (const [, name = ''] of alerts.matchAll(/- alert: (\w+)/g)) expect(tested).toContain(name)
})
