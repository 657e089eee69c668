import { afterAll, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { metric, readiness } from '../support/admin.ts'
import { connect, handshake, payloadOf } from '../support/client.ts'
import { freePort } from '../support/postgres.ts'
import { commandLine, launch } from '../support/program.ts'
import { database, unique } from '../support/setup.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'pgws-unread-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** The program with a full pipe as its standard error, which nobody reads until `read` is called. */
async function launchUnread() {
  const pipe = join(folder, unique('pipe'))
  spawnSync('mkfifo', [pipe])
  const reading = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK)
  const writing = openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK)
  try {
    for (;;) writeSync(writing, '-'.repeat(4096))
  } catch {
    // It is full.
  }
  const adminPort = await freePort()
  const program = launch(
    { PGWS_DB_URI: database().uri, PGWS_ADMIN_PORT: String(adminPort) },
    ['-c', 'exec "$@" 2>"$0"', pipe, ...commandLine],
    'sh',
  )
  const port = await program.bound()
  closeSync(writing)
  const admin = `http://127.0.0.1:${adminPort}`
  await until(async () => (await readiness(admin)) === 200)
  let text = ''
  const bytes = Buffer.alloc(65_536)
  /** Reads what is there. */
  const read = (): string => {
    try {
      for (let length = 1; length > 0; ) {
        length = readSync(reading, bytes)
        text += bytes.toString('utf8', 0, length)
      }
    } catch {
      // Nothing is there now.
    }
    return text
  }
  const dropped = (): Promise<number> => metric(admin, 'pgws_log_lines_dropped_total')
  return { program, port, read, dropped, [Symbol.dispose]: () => closeSync(reading) }
}

/** All that a program logs until it has ended well. */
async function readToEnd({ program, read }: Awaited<ReturnType<typeof launchUnread>>): Promise<string> {
  const reading = setInterval(read, 5)
  const code = await program.exited
  clearInterval(reading)
  expect(code).toBe(0)
  return read()
}

test('a log that nobody reads stops nothing: lines are dropped, counted, and told of once somebody reads', async () => {
  using unread = await launchUnread()
  const { program, port, read, dropped } = unread
  const origin = `ws://127.0.0.1:${port}`
  const readable = Array.from({ length: 10 }, (_, index) => `${index}`.repeat(500))
  const path = `/${await token({ mode: 'r', channels: readable })}`
  while ((await dropped()) === 0) {
    await using client = await connect(`${origin}${path}`)
    client.send('is said once, with the names of its channels')
    await handshake(port, '/chat/none')
  }
  await using writer = await connect(`${origin}/unread/${await token({ mode: 'rw' })}`)
  writer.send('still here')
  expect(payloadOf(await writer.next())).toBe('still here')

  await until(() => read().includes('log lines dropped'))
  const told = Number(/warning: log lines dropped, for nobody read them lines=(\d+)\n/.exec(read())?.[1])
  expect(told).toBeGreaterThan(0)
  expect(told).toBe(await dropped())
  program.signal('SIGTERM')
  expect((await readToEnd(unread)).slice(-1000)).toEndWith('info: stopped\n')
})

test('a program whose log nobody reads ends, and what it said last is there for who reads then', async () => {
  using silent = await launchUnread()
  silent.program.signal('SIGTERM')
  expect(await silent.program.exited).toBe(0)

  using late = await launchUnread()
  late.program.signal('SIGTERM')
  await until(async () => (await handshake(late.port, '/chat/none').catch(() => undefined)) === undefined)
  const lines = (await readToEnd(late)).replace(/^-*/, '')
  expect(lines).toMatch(/info: listening /)
  expect(lines).toEndWith('info: stopped\n')
})
