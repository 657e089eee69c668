import { describe, expect, test } from 'bun:test'
import { adminOf, metric } from '../support/admin.ts'
import { connect, frame, handshake, payloadOf, rawConnection } from '../support/client.ts'
import { freePort } from '../support/postgres.ts'
import { type Environment, launch, start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { bytes, token } from '../support/token.ts'
import { until } from '../support/until.ts'

const env = (more: Environment): Environment => ({ PGWS_DB_URI: database().uri, ...more })

test('PGWS_ALLOWED_ORIGINS refuses a browser on another origin, and no client that sends none', async () => {
  await using program = await start(env({ PGWS_ALLOWED_ORIGINS: 'https://a.example, http://b.example:8080' }))
  const path = `/chat/${await token({ mode: 'r' })}`
  const status = async (headers: Record<string, string>) => (await handshake(program.port, path, headers)).status
  expect(await status({})).toBe(101)
  expect(await status({ Origin: 'https://a.example' })).toBe(101)
  expect(await status({ Origin: 'http://b.example:8080' })).toBe(101)
  for (const origin of ['https://evil.example', 'http://a.example', 'https://a.example.evil', 'null', 'http://b.example']) {
    expect(await handshake(program.port, path, { Origin: origin })).toMatchObject({ status: 403, body: 'Origin not allowed' })
  }
})

test('PGWS_MAX_CONNECTIONS refuses further upgrades with 503 until one leaves', async () => {
  await using program = await start(env({ PGWS_MAX_CONNECTIONS: '3' }))
  const url = `${program.origin}/chat/${await token({ mode: 'r' })}`
  const clients = await Promise.all([connect(url), connect(url), connect(url)])
  const path = new URL(url).pathname
  const refused = await handshake(program.port, path)
  expect(refused).toMatchObject({ status: 503, body: 'Too many connections' })
  expect(refused.headers.get('Retry-After')).toBe('1')
  await clients[0]?.close()
  // A handshake that fails gives its place back.
  for (let index = 0; index < 5; index++)
    expect((await handshake(program.port, path, { 'Sec-WebSocket-Key': 'short' })).status).toBe(400)
  await using _again = await connect(url)
  await Promise.all(clients.map((client) => client.close()))
})

test('PGWS_MAX_MESSAGES_PER_SECOND closes a connection above it with 1008, and none at it', async () => {
  await using program = await start(env({ PGWS_MAX_MESSAGES_PER_SECOND: '20' }))
  const channel = unique('rate')
  const url = `${program.origin}/${channel}/${await token({ mode: 'rw' })}`
  await using calm = await connect(url)
  for (let index = 0; index < 20; index++) calm.send(String(index))
  expect((await calm.take(20)).map(payloadOf)).toHaveLength(20)
  await using hasty = await connect(url)
  for (let index = 0; index < 21; index++) hasty.send(String(index))
  expect(await hasty.closed).toEqual({ code: 1008, reason: expect.stringContaining('PGWS_MAX_MESSAGES_PER_SECOND') })
  expect((await calm.take(20)).map(payloadOf)).toEqual(Array.from({ length: 20 }, (_, index) => String(index)))
})

const [CLOSE, PING, PONG] = [8, 9, 10]

describe('PGWS_MAX_MESSAGES_PER_SECOND counts', () => {
  test.each([
    ['messages of a client that may only read', frame(1, bytes('x'))],
    ['pings', frame(PING, bytes('x'))],
    ['pongs that nobody asked for', frame(PONG, bytes('x'))],
  ])('%s', async (_, sent) => {
    await using program = await start(env({ PGWS_MAX_MESSAGES_PER_SECOND: '20' }))
    const path = `/chat/${await token({ mode: 'r' })}`
    const code = async (count: number): Promise<number | undefined> => {
      const socket = rawConnection(program.port, path)
      await new Promise((opened) => socket.once('data', opened))
      let received = Buffer.alloc(0)
      const answered = new Promise<void>((done) => {
        socket.on('data', (chunk: Buffer) => {
          received = Buffer.concat([received, chunk])
          if (received.includes(Buffer.from([0x80 | CLOSE]))) done()
        })
      })
      // A close frame of its own gets the answer to it, where the server has not closed before.
      socket.write(Buffer.concat([...Array<Buffer>(count).fill(sent), frame(CLOSE, Buffer.from([0x03, 0xe8]))]))
      await answered
      socket.destroy()
      const start = received.indexOf(0x80 | CLOSE)
      return received.readUInt16BE(start + 2)
    }
    expect(await code(20)).toBe(1000)
    expect(await code(21)).toBe(1008)
  })
})

test('messages of a client that may only read go nowhere, are counted, and are logged once a connection', async () => {
  await using program = await start(env({ PGWS_ADMIN_PORT: '0' }))
  const channel = unique('ignored')
  await using reader = await connect(`${program.origin}/${channel}/${await token({ mode: 'r' })}`)
  await using other = await connect(`${program.origin}/${channel}/${await token({ mode: 'rw' })}`)
  for (const text of ['one', 'two', 'three']) reader.send(text)
  const admin = await adminOf(program)
  await until(async () => (await metric(admin, 'pgws_messages_ignored_total')) === 3)
  other.send('allowed')
  expect(payloadOf(await reader.next())).toBe('allowed')
  expect(program.stderr().match(/ignoring what a client sends/g)).toHaveLength(1)
  expect(program.stderr()).toMatch(new RegExp(`ignoring what a client sends .* channels=${channel}`))
})

test('PGWS_SEND_BUFFER_BYTES drops a reader that stalls, which sees no gap, and no other', async () => {
  await using program = await start(env({ PGWS_SEND_BUFFER_BYTES: '65536', PGWS_ADMIN_PORT: '0' }))
  const channel = unique('slow')
  const path = `/${channel}/${await token({ mode: 'r' })}`
  await using healthy = await connect(`${program.origin}${path}`)
  const stalled = rawConnection(program.port, path)
  await new Promise((opened) => stalled.once('data', opened))
  stalled.pause()
  let sent = 0
  const text = 'x'.repeat(1000)
  while (sent < 40_000 && !program.stderr().includes('reads too slowly')) {
    await sql()`select pg_notify('postgres-websockets-listener', json_build_object('channel', ${channel}::text, 'n', n, 'text', ${text}::text)::text)
      from generate_series(${sent}::int, ${sent + 199}::int) as n`
    sent += 200
  }
  expect(program.stderr()).toContain('reads too slowly')
  const numbers = (await healthy.take(sent)).map((message) => JSON.parse(message).n)
  expect(numbers).toEqual(Array.from({ length: sent }, (_, index) => index))
  const received: Buffer[] = []
  stalled.on('data', (chunk: Buffer) => received.push(chunk))
  const gone = new Promise((closed) => stalled.once('close', closed))
  stalled.resume()
  await gone
  const seen = [
    ...Buffer.concat(received)
      .toString('latin1')
      .matchAll(/"n" : (\d+)/g),
  ].map(([, n]) => Number(n))
  expect(seen).toEqual(Array.from({ length: seen.length }, (_, index) => index))
  expect(seen.length).toBeLessThan(sent)
  const admin = await adminOf(program)
  expect(await metric(admin, 'pgws_slow_readers_disconnected_total')).toBe(1)
  expect(await metric(admin, 'pgws_connections_closed_total{code="1006"}')).toBe(1)
})

test('PGWS_REUSE_PORT lets several processes share the port', async () => {
  const port = String(await freePort())
  const shared = env({ PGWS_PORT: port, PGWS_REUSE_PORT: 'True' })
  await using one = await start(shared)
  await using two = await start(shared)
  const url = `${one.origin}/${unique('shared')}/${await token({ mode: 'rw' })}`
  const clients = await Promise.all(Array.from({ length: 40 }, () => connect(url)))
  clients[0]?.send('to all')
  expect((await Promise.all(clients.map((client) => client.next()))).map(payloadOf)).toEqual(Array(40).fill('to all'))
  await one.stop()
  expect((await handshake(two.port, new URL(url).pathname)).status).toBe(101)
  const third = launch(env({ PGWS_PORT: port }))
  expect(await third.exited).toBe(1)
})

describe('what the runtime closes of its own accord', () => {
  test.each([
    ['1007', 'text that is not UTF-8', frame(1, new Uint8Array([0xff, 0xfe]))],
    ['1002', 'reserved bits', Buffer.from([0xf1, 0x80, 0, 0, 0, 0])],
    ['1002', 'an unknown opcode', frame(3, bytes('x'))],
  ])('is counted by the code on the wire: %s for %s', async (code, _, bad) => {
    await using program = await start(env({ PGWS_ADMIN_PORT: '0', PGWS_LOG_LEVEL: 'debug' }))
    const socket = rawConnection(program.port, `/chat/${await token({ mode: 'rw' })}`)
    await new Promise((opened) => socket.once('data', opened))
    const closing = new Promise<Buffer>((closed) => socket.once('data', closed))
    socket.write(bad)
    const received = await closing
    expect(received[0]).toBe(0x88)
    expect(received.readUInt16BE(2)).toBe(Number(code))
    await program.logged(new RegExp(`client closed .*code=${code}`))
    socket.destroy()
  })
})
