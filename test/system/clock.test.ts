import { afterAll, expect, test } from 'bun:test'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, payloadOf } from '../support/client.ts'
import { endBackends } from '../support/faults.ts'
import { start } from '../support/program.ts'
import { startProxy } from '../support/proxy.ts'
import { database, unique } from '../support/setup.ts'
import { token } from '../support/token.ts'

const folder = mkdtempSync(join(tmpdir(), 'pgws-clock-'))
afterAll(() => rmSync(folder, { recursive: true }))

const HOUR = 3600

/** The program under a wall clock that `step` sets some seconds ahead of the machine's; its monotonic clock is the machine's. */
async function startUnderClock(env: Readonly<Record<string, string>> = {}) {
  const file = join(folder, unique('clock'))
  const step = (seconds: number): void => {
    writeFileSync(`${file}.new`, `${seconds < 0 ? '' : '+'}${seconds}`)
    // In one step, for the file is read at each look at the clock.
    renameSync(`${file}.new`, file)
  }
  step(0)
  const program = await start({
    PGWS_DB_URI: database().uri,
    PGWS_META_CHANNEL: 'meta',
    PGWS_META_EVENTS: 'ConnectionClose',
    ...env,
    LD_PRELOAD: '/usr/$LIB/faketime/libfaketimeMT.so.1',
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    DONT_FAKE_MONOTONIC: '1',
  })
  return { program, step }
}

/** What the program takes for the present, in seconds: the time in the envelope of a message. */
const presentOf = async (origin: string): Promise<number> => {
  // Without times, that any present lets in.
  await using client = await connect(`${origin}/${unique('present')}/${await token({ mode: 'rw' })}`)
  client.send('')
  return JSON.parse(await client.next()).claims.message_delivered_at
}

test('a clock set back by an hour closes no client under its rate, and lengthens or shortens no connection', async () => {
  const { program, step } = await startUnderClock({ PGWS_MAX_MESSAGES_PER_SECOND: '4' })
  await using meta = await connect(`${program.origin}/meta/${await token({ mode: 'r' })}`)
  const client = await connect(`${program.origin}/${unique('calm')}/${await token({ mode: 'rw' })}`)
  const began = performance.now()
  client.send('before')
  expect(payloadOf(await client.next())).toBe('before')
  step(-HOUR)
  for (let count = 0; count < 8; count++) {
    await Bun.sleep(300)
    client.send(String(count))
    expect(payloadOf(await client.next())).toBe(String(count))
  }
  await client.close()
  const { seconds } = JSON.parse(await meta.next())
  expect(seconds).toBeGreaterThanOrEqual(2.4)
  expect(seconds).toBeLessThan((performance.now() - began) / 1000 + 1)
  expect(await program.stop()).toBe(0)
})

test('a clock set forward by an hour closes within 2 s whose exp it has passed, and no other', async () => {
  const { program, step } = await startUnderClock()
  const lasting = async (seconds: number) =>
    connect(`${program.origin}/chat/${await token({ mode: 'r', exp: Date.now() / 1000 + seconds })}`)
  const ending = await Promise.all([lasting(25), lasting(HOUR - 60)])
  await using staying = await lasting(2 * HOUR)
  step(HOUR)
  const began = performance.now()
  for (const client of ending) expect(await client.closed).toEqual({ code: 3001, reason: 'JWT expired' })
  expect(performance.now() - began).toBeLessThan(2000)
  expect(await presentOf(program.origin)).toBeGreaterThan(Date.now() / 1000 + HOUR - 60)
  expect(staying.waiting).toBe(0)
  expect(await program.stop()).toBe(0)
})

test.each([-HOUR, HOUR])(
  'a clock set by %i s while the server drains lengthens or shortens no PGWS_SHUTDOWN_TIMEOUT',
  async (seconds) => {
    const { port } = database()
    using proxy = await startProxy(port)
    const uri = database().uri.replace(String(port), String(proxy.port))
    const { program, step } = await startUnderClock({ PGWS_DB_URI: uri, PGWS_SHUTDOWN_TIMEOUT: '2000' })
    const client = await connect(`${program.origin}/chat/${await token({ mode: 'w' })}`)
    proxy.swallow()
    client.send('waits')
    const began = performance.now()
    program.signal('SIGTERM')
    await program.logged(/draining/)
    step(seconds)
    const code = await Promise.race([program.exited, Bun.sleep(4000)])
    program.signal('SIGKILL')
    expect(code).toBe(1)
    expect(performance.now() - began).toBeGreaterThan(1900)
  },
)

test('a clock that is set back while the listener is away still names a window that holds what was missed', async () => {
  const { program, step } = await startUnderClock({ PGWS_CHECK_LISTENER_INTERVAL: '2000' })
  const channel = unique('back')
  await using client = await connect(`${program.origin}/${channel}/${await token({ mode: 'r' })}`, { protocols: ['pgws'] })
  step(-HOUR)
  const lostAt = Date.now() / 1000 - HOUR
  await endBackends(database(), 'listening')
  const { from, to } = JSON.parse(await client.next())
  expect(from).toBeLessThanOrEqual(lostAt)
  expect(to).toBeGreaterThanOrEqual(lostAt)
  await program.stop()
})
