import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { once } from 'node:events'
import { connect, frame, handshake, payloadOf, rawConnection } from '../support/client.ts'
import { isOnDeno, launch, type Program, start } from '../support/program.ts'
import { database, sql } from '../support/setup.ts'
import { bytes, now, token } from '../support/token.ts'

let program: Program
beforeAll(async () => {
  program = await start({ PGWS_DB_URI: database().uri })
})
afterAll(() => program.stop())

const opens = async (path: string, headers: Record<string, string> = {}): Promise<number> =>
  (await handshake(program.port, path, headers)).status

describe('a path', () => {
  test('of channel and token opens the channel', async () => {
    await using client = await connect(`${program.origin}/path-1/${await token({ mode: 'rw' })}`)
    client.send('x')
    expect(JSON.parse(await client.next())).toMatchObject({ channel: 'path-1', payload: 'x' })
  })
  test('of a token opens all that it names', async () => {
    await using client = await connect(
      `${program.origin}/${await token({ mode: 'rw', channel: 'path-2', channels: ['path-3', 'path-2'] })}`,
    )
    client.send('x')
    expect((await client.take(2)).map((text) => JSON.parse(text).channel)).toEqual(['path-2', 'path-3'])
  })
  test('may have further segments, a trailing slash and a query', async () => {
    const given = await token({ mode: 'r', channels: ['chat'] })
    for (const path of [`/chat/${given}/`, `/chat/${given}/more/of/it`, `/${given}/`, `/chat/${given}?a=b/c`, `/${given}?x`]) {
      expect(await opens(path)).toBe(101)
    }
  })
  test.each([['a b'], ['ü/€'], ['🦄'], ["'; drop table x --"], ['%41'], ['__proto__'], ['constructor'], ['.'], ['a.b.c']])(
    'opens the channel %p, percent-encoded',
    async (name) => {
      const path = encodeURIComponent(name).replaceAll('.', '%2E')
      await using client = await connect(`${program.origin}/${path}/${await token({ mode: 'rw', channels: [name] })}`)
      client.send('x')
      expect(JSON.parse(await client.next()).channel).toBe(name)
    },
  )
})

describe('a token', () => {
  test('in the Authorization header opens the path as channel', async () => {
    await using client = await connect(`${program.origin}/by-header`, {
      headers: { Authorization: `Bearer ${await token({ mode: 'rw' })}` },
    })
    client.send('x')
    expect(JSON.parse(await client.next()).channel).toBe('by-header')
  })
  test('as a subprotocol opens the path as channel, and is not echoed in whatever order', async () => {
    const offer = `pgws.token.${await token({ mode: 'rw', channels: ['by-offer'] })}`
    for (const protocols of [
      ['pgws', offer],
      [offer, 'pgws'],
      [offer, 'other', 'pgws'],
    ]) {
      await using client = await connect(`${program.origin}/by-offer`, { protocols })
      expect(client.protocol).toBe('pgws')
      client.send('x')
      expect(JSON.parse(await client.next()).channel).toBe('by-offer')
    }
    expect(await opens('/', { 'Sec-WebSocket-Protocol': `pgws, ${offer}` })).toBe(101)
  })
  test('as the only subprotocol is refused with what to do', async () => {
    const answer = await handshake(program.port, '/chat', {
      'Sec-WebSocket-Protocol': `pgws.token.${await token({ mode: 'r' })}`,
    })
    expect(answer).toMatchObject({ status: 400, body: 'Offer the subprotocol pgws beside the token' })
    expect(answer.headers.has('Sec-WebSocket-Protocol')).toBe(false)
  })
  test('in the path wins, then the subprotocol, then the header', async () => {
    const channels = async (name: string) => token({ mode: 'rw', channels: [name] })
    const headers = { Authorization: `Bearer ${await channels('of-header')}` }
    await using first = await connect(`${program.origin}/${await channels('of-path')}`, {
      headers,
      protocols: ['pgws', `pgws.token.${await channels('of-offer')}`],
    })
    await using second = await connect(`${program.origin}/`, {
      headers,
      protocols: ['pgws', `pgws.token.${await channels('of-offer')}`],
    })
    first.send('x')
    second.send('x')
    expect(JSON.parse(await first.next()).channel).toBe('of-path')
    expect(JSON.parse(await second.next()).channel).toBe('of-offer')
  })
  test('is not disturbed by the Authorization of another', async () => {
    expect(await opens(`/chat/${await token({ mode: 'r' })}`, { Authorization: 'Basic dTpw' })).toBe(101)
    expect(await opens(`/${await token({ mode: 'r', channels: ['chat'] })}`, { Authorization: 'Bearer foreign' })).toBe(101)
    expect(
      await opens(`/chat/${await token({ mode: 'r' })}`, { Authorization: `Bearer ${await token({ mode: 'w', exp: 1 })}` }),
    ).toBe(101)
  })
})

test('a foreign subprotocol is selected, for a browser ends a connection otherwise', async () => {
  await using client = await connect(`${program.origin}/chat/${await token({ mode: 'r' })}`, {
    protocols: ['chat.v2', 'chat.v1'],
  })
  expect(client.protocol).toBe('chat.v2')
  await using beside = await connect(`${program.origin}/chat`, {
    protocols: [`pgws.token.${await token({ mode: 'r' })}`, 'chat.v1'],
  })
  expect(beside.protocol).toBe('chat.v1')
})

describe('a refusal', () => {
  test.each([
    ['a missing token', async () => '/', 401, 'Missing token'],
    ['a malformed token', async () => '/chat/abc', 401, 'Malformed token'],
    [
      'a token of another secret',
      async () => `/chat/${await token({ mode: 'r' }, bytes('other-other-other-other-other-other'))}`,
      401,
      'Token not verified',
    ],
    ['an expired token', async () => `/chat/${await token({ mode: 'r', exp: now() - 1 })}`, 401, 'Token expired'],
    [
      'a token that is not yet valid',
      async () => `/chat/${await token({ mode: 'r', nbf: now() + 60 })}`,
      401,
      'Token not yet valid',
    ],
    ['a token from the future', async () => `/chat/${await token({ mode: 'r', iat: now() + 60 })}`, 401, 'Token not yet valid'],
    ['a missing mode', async () => `/chat/${await token({})}`, 403, 'Missing mode'],
    ['an unknown mode', async () => `/chat/${await token({ mode: 'x' })}`, 403, 'Unknown mode: r, w and rw are known'],
    ['another channel', async () => `/other/${await token({ mode: 'r', channels: ['chat'] })}`, 403, 'No allowed channels'],
    ['empty channels', async () => `/chat/${await token({ mode: 'r', channels: [] })}`, 403, 'No allowed channels'],
    ['no channel at all', async () => `/${await token({ mode: 'r' })}`, 403, 'No allowed channels'],
  ] as [string, () => Promise<string>, number, string][])('of %s says so, with its status', async (_, path, status, body) => {
    const target = await path()
    const answer = await handshake(program.port, target)
    expect(answer).toMatchObject({ status, body })
    expect(answer.headers.get('Content-Type')).toStartWith('text/plain')
    expect(answer.headers.get('Server')).toMatch(/^postgres-websockets\/\d/)
    for (const part of target.split('/').at(-1)?.split('.') ?? [])
      if (part.length > 5) expect(program.stderr()).not.toContain(part)
  })
  test('is logged with its status and reason', async () => {
    await using fresh = await start({ PGWS_DB_URI: database().uri })
    await handshake(fresh.port, `/chat/${await token({ mode: 'r', exp: now() - 1 })}`)
    await fresh.logged(/info: upgrade refused status=401 reason="Token expired"/)
    await handshake(fresh.port, `/chat/${await token({})}`)
    await fresh.logged(/info: upgrade refused status=403 reason="Missing mode"/)
  })
  test('of a handshake whose connection is not to be upgraded says so (RFC 6455 section 4.2.1)', async () => {
    const path = `/chat/${await token({ mode: 'r' })}`
    for (const connection of ['keep-alive', 'upgraded', 'no-upgrade', 'close, x upgrade'])
      expect(await handshake(program.port, path, { Connection: connection })).toMatchObject({
        status: 400,
        body: 'Not a WebSocket handshake of version 13',
      })
    for (const connection of ['upgrade', 'keep-alive, Upgrade', 'UPGRADE,close', 'Upgrade , keep-alive'])
      expect(await opens(path, { Connection: connection })).toBe(101)
  })
  test('of a handshake by HTTP/1.0 says so', async () => {
    const path = `/chat/${await token({ mode: 'r' })}`
    // With a host, Bun does not tell which version it was.
    for (const host of isOnDeno ? ['', 'Host: 127.0.0.1\r\n'] : ['']) {
      const socket = rawConnection(program.port, path, new Uint8Array(), `HTTP/1.0\r\n${host}`)
      const [answer] = await once(socket, 'data')
      expect(String(answer)).toMatch(/^HTTP\/1\.1 400 /)
      socket.destroy()
    }
  })
  test('of a handshake that is none, or of another version, says so', async () => {
    const path = `/chat/${await token({ mode: 'r' })}`
    expect(await opens(path, { 'Sec-WebSocket-Key': 'short' })).toBe(400)
    expect(await opens(path, { 'Sec-WebSocket-Version': '8' })).toBe(426)
  })
})

test('what a client sends in the packet of its handshake counts', async () => {
  await using reader = await connect(`${program.origin}/early/${await token({ mode: 'r' })}`)
  const early = Buffer.concat(['one', 'two'].map((text) => frame(1, bytes(text))))
  const socket = rawConnection(program.port, `/early/${await token({ mode: 'w' })}`, early)
  expect((await reader.take(2)).map(payloadOf)).toEqual(['one', 'two'])
  socket.destroy()
})

test('what is notified after a client has seen its socket open reaches it', async () => {
  for (let round = 0; round < 30; round++) {
    await using client = await connect(`${program.origin}/at-once/${await token({ mode: 'r' })}`)
    await sql().notify('postgres-websockets-listener', `{"channel":"at-once","payload":${round}}`)
    expect(await client.next()).toBe(`{"channel":"at-once","payload":${round}}`)
  }
})

describe('the end of a token', () => {
  test('closes a live connection with 3001', async () => {
    const exp = Date.now() / 1000 + 1.25
    await using client = await connect(`${program.origin}/ends/${await token({ mode: 'rw', exp })}`)
    expect(await client.closed).toEqual({ code: 3001, reason: 'JWT expired' })
    const late = Date.now() - exp * 1000
    expect(late).toBeGreaterThanOrEqual(0)
    expect(late).toBeLessThan(1000)
  })
  test('60 days ahead, or beyond every calendar, closes nothing', async () => {
    for (const exp of [now() + 60 * 86_400, now() + 10 * 365 * 86_400, 1e15, 1e300]) {
      await using client = await connect(`${program.origin}/lasts/${await token({ mode: 'rw', exp })}`)
      client.send('still here')
      expect(payloadOf(await client.next())).toBe('still here')
    }
  })
})

test('until the first LISTEN stands, upgrades get 503 and plain HTTP is served', async () => {
  await using waiting = launch({ PGWS_DB_URI: 'postgres://u@127.0.0.1:1/d' })
  const port = await waiting.bound()
  const answer = await handshake(port, `/chat/${await token({ mode: 'r' })}`)
  expect(answer).toMatchObject({ status: 503, body: 'Not listening to the database yet' })
  expect(answer.headers.get('Retry-After')).toBe('1')
  expect(await (await fetch(`http://127.0.0.1:${port}/any/path`)).text()).toContain('postgres-websockets')
})
