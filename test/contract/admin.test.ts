import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { version } from '../../package.json'
import { adminOf, metric, readiness } from '../support/admin.ts'
import { connect, handshake } from '../support/client.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Environment, launch, start } from '../support/program.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.stop())

const env = (more: Environment = {}) => ({
  PGWS_DB_URI: server.uri,
  PGWS_ADMIN_PORT: '0',
  PGWS_CHECK_LISTENER_INTERVAL: '400',
  ...more,
})

test('without PGWS_ADMIN_PORT there is no admin port, and its paths are those of the example page', async () => {
  await using program = await start({ PGWS_DB_URI: server.uri })
  expect(program.stderr()).not.toContain('admin port')
  expect(await (await fetch(`http://127.0.0.1:${program.port}/metrics`)).text()).not.toContain('pgws_')
})

test('/ready says 200 only while the last check succeeded and no drain is under way, /live as long as the process serves', async () => {
  await server.stop('fast')
  await using program = launch(env())
  const admin = await adminOf(program)
  expect((await fetch(`${admin}/live`)).status).toBe(200)
  expect(await readiness(admin)).toBe(503)
  await server.start()
  await program.logged(/info: listening /)
  expect(await readiness(admin)).toBe(200)
  await server.stop('fast')
  await program.logged(/listener lost/)
  expect(await readiness(admin)).toBe(503)
  expect((await fetch(`${admin}/live`)).status).toBe(200)
  expect((await fetch(`${admin}/none`)).status).toBe(404)
  await server.start()
  await until(async () => (await readiness(admin)) === 200)
})

describe('--ready', () => {
  test('asks the admin port', async () => {
    await using program = await start(env())
    const port = new URL(await adminOf(program)).port
    const ready = launch({ PGWS_ADMIN_PORT: port }, ['--ready'])
    expect(await ready.exited).toBe(0)
    expect(ready.stdout()).toBe('ready\n')
  })
  test('fails where nothing answers, or there is no admin port', async () => {
    const silent = launch({ PGWS_ADMIN_PORT: '1' }, ['--ready'])
    expect(await silent.exited).toBe(1)
    expect(silent.stderr()).toContain('does not answer')
    const none = launch({}, ['--ready'])
    expect(await none.exited).toBe(1)
    expect(none.stderr()).toContain('PGWS_ADMIN_PORT')
  })
})

test('/metrics counts what happens', async () => {
  await using program = await start(env())
  const admin = await adminOf(program)
  const path = `/metered/${await token({ mode: 'rw', name: 'snow ☃' })}`
  await using one = await connect(`${program.origin}${path}`)
  await using two = await connect(`${program.origin}/metered/${await token({ mode: 'r' })}`)
  one.send('1234567')
  const [delivered] = await Promise.all([one.next(), two.next()])
  await handshake(program.port, '/chat/none')
  for (const code of [1000, 4321, 4322]) await (await connect(`${program.origin}${path}`)).close(code)
  const text = await (await fetch(`${admin}/metrics`)).text()
  const samples = Object.fromEntries(
    text
      .split('\n')
      .filter((line) => line && !line.startsWith('#'))
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  )
  expect(samples).toMatchObject({
    'pgws_connections{mode="rw"}': 1,
    'pgws_connections{mode="r"}': 1,
    'pgws_connections_opened_total{mode="rw"}': 4,
    'pgws_connections_closed_total{code="1000"}': 1,
    'pgws_connections_closed_total{code="own"}': 2,
    'pgws_upgrades_refused_total{reason="token_malformed"}': 1,
    pgws_messages_received_total: 1,
    pgws_message_bytes_received_total: 7,
    pgws_notifications_received_total: 1,
    pgws_messages_delivered_total: 2,
    pgws_message_bytes_delivered_total: 2 * Buffer.byteLength(delivered),
    pgws_notification_to_socket_seconds_count: 1,
    pgws_message_to_commit_seconds_count: 1,
    pgws_batch_messages_sum: 1,
    pgws_send_queue_messages: 0,
    pgws_send_queue_bytes: 0,
    pgws_listener_up: 1,
    pgws_listener_reconnections_total: 0,
    pgws_slow_readers_disconnected_total: 0,
    pgws_notification_queue_usage: 0,
    [`pgws_build_info{version="${version}"}`]: 1,
  })
  expect(samples.process_resident_memory_bytes).toBeGreaterThan(1e7)
  expect(samples.process_cpu_seconds_total).toBeGreaterThan(0)
  expect(samples.process_start_time_seconds).toBeGreaterThan(Date.now() / 1000 - 60)
  expect((await fetch(`${admin}/metrics`)).headers.get('Content-Type')).toBe('text/plain; version=0.0.4; charset=utf-8')
})

test('/metrics tells of an outage', async () => {
  await using program = await start(env())
  const admin = await adminOf(program)
  await server.stop('immediate')
  await program.logged(/listener lost/)
  expect(await metric(admin, 'pgws_listener_up')).toBe(0)
  const before = program.stderr().length
  await server.start()
  await program.logged(/info: listening again/, before)
  expect(await metric(admin, 'pgws_listener_up')).toBe(1)
  expect(await metric(admin, 'pgws_listener_reconnections_total')).toBe(1)
  expect(await metric(admin, 'pgws_listener_outage_seconds_total')).toBeGreaterThan(0)
})

test('the Grafana dashboard reads exactly the metrics that there are, with and without the journal and connections', async () => {
  const written = async (more: Environment): Promise<string[]> => {
    await using program = await start(env(more))
    const text = await (await fetch(`${await adminOf(program)}/metrics`)).text()
    return [...text.matchAll(/^# HELP (\S+) /gm)].map(([, name = '']) => name)
  }
  expect(await launch(env(), ['--install']).exited).toBe(0)
  const names = new Set([...(await written({})), ...(await written({ PGWS_JOURNAL: 'True', PGWS_CONNECTIONS: 'True' }))])
  const dashboard = readFileSync(resolve(import.meta.dir, '../../deploy/grafana.json'), 'utf8')
  const read = new Set([...dashboard.matchAll(/\b(?:pgws|process)_[a-z_]+/g)].map(([name]) => name.replace(/_bucket$/, '')))
  expect([...read].sort()).toEqual([...names].sort())
})
