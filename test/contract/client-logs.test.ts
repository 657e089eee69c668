import { describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { connect, handshake } from '../support/client.ts'
import { fixture } from '../support/files.ts'
import { type Environment, type Program, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { token } from '../support/token.ts'

type Line = Readonly<Record<string, unknown>>

const startJson = (env: Environment = {}): Promise<Program> =>
  start({ PGWS_DB_URI: database().uri, PGWS_LOG_FORMAT: 'json', ...env })

/** The lines of an event so far. */
const lines = (program: Program, event: string): readonly Line[] =>
  program
    .stderr()
    .split('\n')
    // The last is not whole, or empty.
    .slice(0, -1)
    .map((line) => JSON.parse(line))
    .filter((line) => line.event === event)

const path = async (channel: string, claims: Record<string, unknown> = {}): Promise<string> =>
  `/${encodeURIComponent(channel)}/${await token({ mode: 'rw', ...claims })}`

/** Opens a connection with these headers and returns the line about it. */
async function opened(program: Program, headers: Record<string, string> = {}): Promise<Line | undefined> {
  const before = program.stderr().length
  await using _ = await connect(`${program.origin}${await path('chat')}`, { headers })
  await program.logged(/"client opened".*\n/, before)
  return lines(program, 'client opened').at(-1)
}

describe('each line about a client', () => {
  test('says who it is, by an id that is also on the events of the meta channel', async () => {
    await using program = await startJson({
      PGWS_LOG_LEVEL: 'debug',
      PGWS_LOG_CLAIM: 'sub',
      PGWS_META_CHANNEL: 'who',
      PGWS_META_EVENTS: 'all',
    })
    await using watcher = await connect(`${program.origin}${await path('who')}`)
    await watcher.next()
    const client = await connect(`${program.origin}/${await token({ mode: 'r', channels: ['a', 'b'], sub: 'ada "1"' })}`)
    client.send('may not')
    client.send('may not')
    await client.close(4000, 'enough')
    const events = (await watcher.take(2)).map((text) => JSON.parse(text))
    await program.logged(/"client closed".*\n/)
    const id = events[0].client
    expect(id).toMatch(/^[\da-z]{8}$/)
    expect(events).toMatchObject([
      { event: 'ConnectionOpen', client: id },
      { event: 'ConnectionClose', client: id },
    ])
    const who = { client: id, address: '127.0.0.1', channels: 'a,b' }
    const [watching, own] = lines(program, 'client opened')
    expect(own).toMatchObject({ level: 'info', ...who, mode: 'r', sub: 'ada "1"' })
    expect(watching?.client).not.toBe(id)
    expect(watching).not.toHaveProperty('sub')
    expect(lines(program, 'client closed')).toMatchObject([
      { level: 'info', ...who, code: 4000, reason: 'enough', seconds: expect.any(Number), sub: 'ada "1"' },
    ])
    expect(lines(program, 'ignoring what a client sends whose token does not let it write')).toMatchObject([who])
    watcher.send('x'.repeat(9000))
    await watcher.closed
    await program.logged(/"client closed".*"code":1009.*\n/)
    expect(lines(program, 'closing a client')).toMatchObject([
      { client: watching?.client, address: '127.0.0.1', channels: 'who', code: 1009 },
    ])
  })

  test('says whose event was too large for the meta channel', async () => {
    await using program = await startJson({ PGWS_META_CHANNEL: 'who' })
    await using _ = await connect(`${program.origin}${await path('chat', { large: 'x'.repeat(8000) })}`)
    await program.logged(/"event lost".*\n/)
    const client = lines(program, 'client opened')[0]?.client
    expect(lines(program, 'event lost')).toMatchObject([
      { name: 'ConnectionOpen', reason: 'too large for NOTIFY', client, address: '127.0.0.1', channels: 'chat' },
    ])
  })

  test('shows a claim as it stands in the token, cut where it is long, and no claim where none is named', async () => {
    await using program = await startJson({ PGWS_LOG_CLAIM: 'id' })
    const open = async (claims: Record<string, unknown>): Promise<Line | undefined> => {
      const before = program.stderr().length
      await using _ = await connect(`${program.origin}${await path('chat', claims)}`)
      await program.logged(/"client opened".*\n/, before)
      return lines(program, 'client opened').at(-1)
    }
    expect(await open({ id: 7 })).toMatchObject({ id: '7' })
    expect(await open({ id: { a: [1] } })).toMatchObject({ id: '{"a":[1]}' })
    expect(await open({ id: 'x'.repeat(5000) })).toMatchObject({ id: `${'x'.repeat(100)}…` })
    expect(await open({ id: await token({ mode: 'r' }) })).toMatchObject({ id: '[token]' })
    await using silent = await startJson()
    expect(Object.keys((await opened(silent)) ?? {})).toEqual(['time', 'level', 'event', 'client', 'address', 'channels', 'mode'])
  })

  test('never shows a channel that looks like a token', async () => {
    await using program = await startJson({ PGWS_LOG_LEVEL: 'debug' })
    const inner = await token({ mode: 'rw' })
    const client = await connect(`${program.origin}${await path(inner)}`)
    client.send('x'.repeat(9000))
    await client.closed
    await program.logged(/"client closed".*\n/)
    expect(lines(program, 'client opened')).toMatchObject([{ channels: '[token]' }])
    for (const part of inner.split('.')) expect(program.stderr()).not.toContain(part)
  })
})

test('the close reason of a client shows no token', async () => {
  await using program = await startJson()
  const inner = await token({ mode: 'r' })
  const client = await connect(`${program.origin}${await path('chat')}`)
  await client.close(3000, `gone ${inner}`.slice(0, 123))
  await program.logged(/"client closed".*\n/)
  expect(lines(program, 'client closed')).toMatchObject([{ code: 3000, reason: '[token]' }])
})

describe('a refusal', () => {
  test('is logged with address, channel and path, without the token', async () => {
    await using program = await startJson({ PGWS_TRUSTED_PROXIES: '127.0.0.1' })
    const good = await token({ mode: 'rw', channels: ['chat'] })
    const { status } = await handshake(program.port, `/rooms%2F42/${good}/more?x=${good}`, { 'X-Forwarded-For': '192.0.2.1' })
    expect(status).toBe(403)
    await handshake(program.port, '/other', { 'Sec-WebSocket-Protocol': `pgws, pgws.token.${good}` })
    await handshake(program.port, '/chat/no-token-at-all')
    await handshake(program.port, `/ws/x/Bearer%20${good}`)
    await program.logged(/(upgrade refused[\s\S]*){4}\n/)
    expect(lines(program, 'upgrade refused')).toMatchObject([
      {
        status: 403,
        reason: 'No allowed channels',
        address: '192.0.2.1',
        channel: 'rooms%2F42',
        path: '/rooms%2F42/[token]/more',
      },
      { status: 403, address: '127.0.0.1', channel: 'other', path: '/other' },
      { status: 401, address: '127.0.0.1', channel: 'chat', path: '/chat/[token]' },
      { status: 401, address: '127.0.0.1', channel: 'ws', path: '/ws/[token]/[token]' },
    ])
    for (const part of good.split('.')) expect(program.stderr()).not.toContain(part)
  })
})

test('a refusal with a channel that looks like a token shows neither', async () => {
  await using program = await startJson()
  const inner = await token({ mode: 'r' })
  const { status } = await handshake(program.port, `/${inner}/${await token({ mode: 'r', channels: ['chat'] })}`)
  expect(status).toBe(403)
  await program.logged(/"upgrade refused".*\n/)
  expect(lines(program, 'upgrade refused')).toMatchObject([{ channel: '[token]', path: '/[token]/[token]' }])
  for (const part of inner.split('.')) expect(program.stderr()).not.toContain(part)
})

describe('PGWS_TRUSTED_PROXIES', () => {
  test('lets X-Forwarded-For of these say the address: the rightmost that is not theirs', async () => {
    await using program = await startJson({ PGWS_TRUSTED_PROXIES: '127.0.0.0/8, ::1, 10.0.0.0/8' })
    const address = async (header: string) => (await opened(program, { 'X-Forwarded-For': header }))?.address
    expect(await address('198.51.100.1, 192.0.2.7, 10.1.1.1')).toBe('192.0.2.7')
    expect(await address('[2001:db8::7]:4711, 10.1.1.1:80')).toBe('2001:db8::7')
    expect(await address('someone')).toBe('127.0.0.1')
    expect((await opened(program))?.address).toBe('127.0.0.1')
  })
  test('takes several headers for one', async () => {
    await using program = await startJson({ PGWS_TRUSTED_PROXIES: '127.0.0.1,10.1.1.1' })
    // The last of them stands in another header of the same name.
    const headers = { 'X-Forwarded-For': '192.0.2.7\r\nX-Forwarded-For: 198.51.100.1\r\nx-forwarded-for: 10.1.1.1' }
    await handshake(program.port, await path('chat'), headers)
    await program.logged(/"client opened".*\n/)
    expect(lines(program, 'client opened')).toMatchObject([{ address: '198.51.100.1' }])
  })
  test('unset, lets the header of nobody count', async () => {
    await using program = await startJson()
    expect((await opened(program, { 'X-Forwarded-For': '192.0.2.7' }))?.address).toBe('127.0.0.1')
  })
})

test('a client of IPv4 has that address where the socket takes IPv6, too', async () => {
  await using program = await startJson({ PGWS_HOST: '*' })
  expect((await opened(program))?.address).toBe('127.0.0.1')
})

test('a client has its address through TLS', async () => {
  await using program = await startJson({
    PGWS_CERTIFICATE_FILE: fixture('server.crt'),
    PGWS_KEY_FILE: fixture('server.key'),
  })
  const ca = readFileSync(fixture('authority.crt'), 'utf8')
  await using _ = await connect(`wss://localhost:${program.port}${await path('chat')}`, { ca })
  await program.logged(/"client opened".*\n/)
  expect(lines(program, 'client opened')).toMatchObject([{ address: '127.0.0.1' }])
})
