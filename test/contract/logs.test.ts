import { afterAll, describe, expect, test } from 'bun:test'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { connect, handshake, payloadOf } from '../support/client.ts'
import { fixture } from '../support/files.ts'
import { launch, type Program, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { bytes, secret, token } from '../support/token.ts'
import { until } from '../support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'pgws-logs-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** Opens, writes, is refused in every way and leaves, with tokens in every place. */
async function exercise(program: Program): Promise<string[]> {
  const good = await token({ mode: 'rw', channels: ['chat'], marker: 'in-claims' })
  const bad = await token({ mode: 'rw' }, bytes('another-secret-another-secret-another'))
  await using client = await connect(`${program.origin}/chat/${good}`)
  client.send('x')
  await client.next()
  client.send('x'.repeat(10_000))
  await client.closed
  for (const given of [good, bad]) {
    await handshake(program.port, `/other/${given}`)
    await handshake(program.port, '/', { Authorization: `Bearer ${given}` })
    await handshake(program.port, '/chat', { 'Sec-WebSocket-Protocol': `pgws, pgws.token.${given}` })
    await handshake(program.port, '/chat', { 'Sec-WebSocket-Protocol': `pgws.token.${given}` })
    await handshake(program.port, `/${given}`, { 'Sec-WebSocket-Key': 'x' })
    await fetch(`http://127.0.0.1:${program.port}/${given}?token=${given}`)
  }
  await handshake(program.port, `/${good}%`)
  return [...good.split('.'), ...bad.split('.')].filter((part) => part.length > 10)
}

describe('PGWS_LOG_LEVEL', () => {
  test.each([['error'], ['warning'], ['info'], ['debug']])(
    '%s writes lines of that level and those before it, and no token',
    async (level) => {
      const levels = ['error', 'warning', 'info', 'debug']
      await using program = launch({ PGWS_DB_URI: database().uri, PGWS_LOG_LEVEL: level })
      const port = await program.bound()
      await until(async () => (await handshake(port, '/x')).status !== 503)
      const parts = await exercise({ ...program, port, origin: `ws://127.0.0.1:${port}` })
      await program.stop()
      const output = program.stderr() + program.stdout()
      for (const part of [...parts, secret, new URL(database().uri).password]) expect(output).not.toContain(part)
      const seen = new Set([...program.stderr().matchAll(/^\S+ (\w+): /gm)].map(([, found]) => found ?? ''))
      const allowed = levels.slice(0, levels.indexOf(level) + 1)
      expect([...seen].every((found) => allowed.includes(found))).toBe(true)
      if (level === 'info' || level === 'debug') expect(seen).toContain(level)
    },
  )
})

describe('PGWS_LOG_FORMAT', () => {
  test('text is a time, a level, an event and fields, and leaves the time to journald', async () => {
    await using program = await start({ PGWS_DB_URI: database().uri })
    expect(program.stderr()).toMatch(
      /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info: listening channel=\S+ server=\S+ version=\S+ tls=false$/m,
    )
    await using journal = await start({ PGWS_DB_URI: database().uri, JOURNAL_STREAM: '8:1' })
    expect(journal.stderr()).toMatch(/^info: listening /m)
  })
  test('json is an object a line', async () => {
    await using program = launch({ PGWS_DB_URI: database().uri, PGWS_LOG_FORMAT: 'json', PGWS_LOG_LEVEL: 'debug' })
    const port = await program.bound()
    await program.logged(/"event":"listening"/)
    await exercise({ ...program, port, origin: `ws://127.0.0.1:${port}` })
    await program.stop()
    const lines = program
      .stderr()
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    for (const line of lines)
      expect(line).toMatchObject({ time: expect.stringMatching(/Z$/), level: expect.any(String), event: expect.any(String) })
    expect(lines).toContainEqual(
      expect.objectContaining({ event: 'upgrade refused', status: 403, reason: 'No allowed channels' }),
    )
  })
})

test('refusals above ten in a second are logged by their number', async () => {
  await using program = await start({ PGWS_DB_URI: database().uri })
  for (let count = 0; count < 30; count++) await handshake(program.port, '/chat/none')
  await program.logged(/info: further requests refused count=20\n/)
  expect(program.stderr().match(/upgrade refused status=401/g)).toHaveLength(10)
  await handshake(program.port, '/chat/none')
  await program.logged(/count=20\n.*upgrade refused status=401/)
})

test('what is dangerous in a channel or a close reason is escaped', async () => {
  await using program = await start({ PGWS_DB_URI: database().uri, PGWS_LOG_LEVEL: 'debug' })
  const evil = '\u009b2J\u0085\u2028\u202e'
  const client = await connect(`${program.origin}/${encodeURIComponent(`grün${evil}`)}/${await token({ mode: 'r' })}`)
  client.send('is said once, with the channel')
  await program.logged(/channels="grün\\u009b2J\\u0085\\u2028\\u202e"/)
  await client.close(3000, evil)
  await program.logged(/client closed .*code=3000 reason="\\u009b2J\\u0085\\u2028\\u202e"/)
})

describe('SIGHUP', () => {
  test('takes over another secret, connection string and certificate, and drops no client', async () => {
    const at = (name: string): string => join(folder, name)
    writeFileSync(at('secret'), `${secret}\n`)
    writeFileSync(at('uri'), database().uri)
    copyFileSync(fixture('server.crt'), at('tls.crt'))
    copyFileSync(fixture('server.key'), at('tls.key'))
    await using program = await start({
      PGWS_DB_URI: `@${at('uri')}`,
      PGWS_JWT_SECRET: `@${at('secret')}`,
      PGWS_CERTIFICATE_FILE: at('tls.crt'),
      PGWS_KEY_FILE: at('tls.key'),
      PGWS_CHECK_LISTENER_INTERVAL: '1000',
    })
    const ca = readFileSync(fixture('authority.crt'), 'utf8')
    const origin = `wss://localhost:${program.port}`
    await using client = await connect(`${origin}/chat/${await token({ mode: 'rw' })}`, { ca })
    const shown = (): Promise<string> =>
      new Promise((resolve, reject) => {
        const socket = connectTls({ host: '127.0.0.1', port: program.port, rejectUnauthorized: false }, () => {
          resolve(String(socket.getPeerCertificate().subject.CN))
          socket.destroy()
        })
        socket.once('error', reject)
      })
    expect(await shown()).toBe('localhost')

    const fresh = 'fresh-secret-fresh-secret-fresh-secret'
    writeFileSync(at('secret'), fresh)
    copyFileSync(fixture('client.crt'), at('tls.crt'))
    copyFileSync(fixture('client.key'), at('tls.key'))
    program.signal('SIGHUP')
    await program.logged(/configuration files read again/)
    expect(await shown()).toBe('postgres')
    client.send('still here')
    expect(payloadOf(await client.next())).toBe('still here')

    copyFileSync(fixture('server.crt'), at('tls.crt'))
    copyFileSync(fixture('server.key'), at('tls.key'))
    program.signal('SIGHUP')
    await program.logged(/read again[\s\S]*read again/)
    await expect(connect(`${origin}/chat/${await token({ mode: 'rw' })}`, { ca })).rejects.toThrow()
    await using other = await connect(`${origin}/chat/${await token({ mode: 'rw' }, bytes(fresh))}`, { ca })
    other.send('to both')
    expect([payloadOf(await client.next()), payloadOf(await other.next())]).toEqual(['to both', 'to both'])
  })
  test('with a chain of which a part is missing keeps the certificate that it has', async () => {
    const chain = join(folder, 'chain.crt')
    copyFileSync(fixture('server.crt'), chain)
    await using program = await start({
      PGWS_DB_URI: database().uri,
      PGWS_CERTIFICATE_FILE: chain,
      PGWS_KEY_FILE: fixture('server.key'),
    })
    const whole = readFileSync(fixture('server.crt'), 'utf8') + readFileSync(fixture('authority.crt'), 'utf8')
    writeFileSync(chain, whole.slice(0, -200))
    program.signal('SIGHUP')
    await program.logged(
      /error: configuration files not taken over .*PGWS_CERTIFICATE_FILE has a PEM certificate that is not whole/,
    )
    writeFileSync(chain, whole)
    program.signal('SIGHUP')
    await program.logged(/info: configuration files read again/)
    const ca = readFileSync(fixture('authority.crt'), 'utf8')
    await using _ = await connect(`wss://localhost:${program.port}/chat/${await token({ mode: 'r' })}`, { ca })
  })
  test('with a fault in a file keeps what it has and says so', async () => {
    writeFileSync(join(folder, 'kept'), secret)
    await using program = await start({ PGWS_DB_URI: database().uri, PGWS_JWT_SECRET: `@${join(folder, 'kept')}` })
    writeFileSync(join(folder, 'kept'), 'short')
    program.signal('SIGHUP')
    await program.logged(/error: configuration files not taken over .*PGWS_JWT_SECRET is 5 bytes long/)
    expect((await handshake(program.port, `/chat/${await token({ mode: 'r' })}`)).status).toBe(101)
  })
})
