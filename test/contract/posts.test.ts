import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { connect as connectSocket } from 'node:net'
import { adminOf, metric } from '../support/admin.ts'
import { connect, payloadOf } from '../support/client.ts'
import { openStream } from '../support/event-source.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { launch, type Program, start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { now, token } from '../support/token.ts'
import { until } from '../support/until.ts'

let program: Program
beforeAll(async () => {
  program = await start({ PGWS_DB_URI: database().uri, PGWS_ADMIN_PORT: '0' })
})
afterAll(() => program.stop())

const at = (path: string, on = program): string => `http://127.0.0.1:${on.port}${path}`

interface Posted {
  readonly status: number
  readonly text: string
  readonly headers: Headers
}

async function post(url: string, body: BodyInit, headers: Record<string, string> = {}): Promise<Posted> {
  const answer = await fetch(url, { method: 'POST', body, headers })
  return { status: answer.status, text: await answer.text(), headers: answer.headers }
}

describe('a POST', () => {
  test('publishes its body on the channel, as a client of a WebSocket would, and is answered 204', async () => {
    const channel = unique('post')
    const given = await token({ mode: 'rw', sub: 'ada', channels: [channel] })
    await using reader = await connect(`${program.origin}/${given}`)
    const headers = { Authorization: `Bearer ${given}` }
    const texts = ['{"a":1}', '', 'Zürich ☕ 🦄\r\n"\\', '\uFEFFbeginning']
    for (const [url, text] of [at(`/${channel}/${given}`), at(`/${given}`), at(`/${channel}`), at('/')].map(
      (url, index) => [url, texts[index] ?? ''] as const,
    )) {
      const answer = await post(url, text, headers)
      expect({ status: answer.status, text: answer.text }).toEqual({ status: 204, text: '' })
      expect(JSON.parse(await reader.next())).toEqual({
        claims: { mode: 'rw', sub: 'ada', channels: [channel], message_delivered_at: expect.any(Number) },
        event: 'WebsocketMessage',
        payload: text,
        channel,
      })
    }
  })

  test('is answered once the database has committed it', async () => {
    const channel = unique('committed')
    const seen: string[] = []
    const listening = await sql().listen('postgres-websockets-listener', (text) => seen.push(text))
    expect((await post(at(`/${channel}/${await token({ mode: 'w' })}`), 'hello')).status).toBe(204)
    // The notification is on its way already, ahead of whatever this session asks next.
    await sql()`select 1`
    await until(() => seen.some((text) => text.includes(channel)))
    await listening.unlisten()
  })

  test('to a token of several channels reaches all of them, with one answer', async () => {
    const channels = [unique('several'), unique('several')]
    const given = await token({ mode: 'rw', channels })
    await using reader = await connect(`${program.origin}/${given}`)
    expect((await post(at(`/${given}`), 'x')).status).toBe(204)
    expect((await reader.take(2)).map((text) => JSON.parse(text).channel)).toEqual(channels)
  })

  test('may come in chunks, or many on one connection', async () => {
    const channel = unique('chunks')
    const given = await token({ mode: 'rw' })
    await using reader = await connect(`${program.origin}/${channel}/${given}`)
    const socket = connectSocket(program.port, '127.0.0.1')
    let received = ''
    socket.setEncoding('latin1').on('data', (chunk) => {
      received += chunk
    })
    const head = `POST /${channel}/${given} HTTP/1.1\r\nHost: x\r\n`
    socket.write(`${head}Content-Length: 3\r\n\r\none`)
    await until(() => received.split('204 No Content').length === 2)
    socket.write(`${head}Transfer-Encoding: chunked\r\n\r\n2\r\ntw\r\n`)
    await Bun.sleep(20)
    socket.write('1\r\no\r\n0\r\n\r\n')
    await until(() => received.split('204 No Content').length === 3)
    expect((await reader.take(2)).map(payloadOf)).toEqual(['one', 'two'])
    socket.destroy()
  })

  test.each(['HTTP/1.0\r\n', 'HTTP/1.1\r\nHost:\r\n'])(
    'that names no host is for the channel of its path: %j',
    async (versionAndHost) => {
      const channels = [unique('hostless'), unique('hostless')]
      const given = await token({ mode: 'rw', channels })
      await using reader = await connect(`${program.origin}/${given}`)
      const socket = connectSocket(program.port, '127.0.0.1')
      const answer = new Promise<string>((done) => socket.once('data', (data) => done(String(data))))
      socket.write(`POST /${channels[1]}/${given} ${versionAndHost}Content-Length: 1\r\n\r\nx`)
      expect(await answer).toStartWith('HTTP/1.1 204 ')
      socket.destroy()
      expect((await post(at(`/${channels[0]}/${given}`), 'y')).status).toBe(204)
      expect((await reader.take(2)).map((text) => JSON.parse(text).channel)).toEqual([channels[1], channels[0]])
    },
  )

  test('counts as no connection, opens and closes none, and is counted as a message', async () => {
    await using told = await start({
      PGWS_DB_URI: database().uri,
      PGWS_ADMIN_PORT: '0',
      PGWS_MAX_CONNECTIONS: '1',
      PGWS_META_CHANNEL: 'posts-meta',
      PGWS_META_EVENTS: 'all',
    })
    await using meta = await connect(`${told.origin}/posts-meta/${await token({ mode: 'r' })}`)
    await meta.next()
    expect((await post(at(`/chat/${await token({ mode: 'w' })}`, told), 'x')).status).toBe(204)
    await post(at(`/posts-meta/${await token({ mode: 'w' })}`, told), 'marker')
    expect(payloadOf(await meta.next())).toBe('marker')
    const admin = await adminOf(told)
    expect(await metric(admin, 'pgws_connections_opened_total{mode="w"}')).toBe(0)
    expect(await metric(admin, 'pgws_messages_received_total')).toBe(2)
    expect(await metric(admin, 'pgws_message_bytes_received_total')).toBe(7)
  })
})

describe('a POST is refused', () => {
  const path = async (claims: Parameters<typeof token>[0]) => `/chat/${await token(claims)}`
  test.each([
    ['without a token', async () => '/', 'x', 401, 'Missing token'],
    ['with a malformed token', async () => '/chat/abc', 'x', 401, 'Malformed token'],
    ['with an expired token', () => path({ mode: 'w', exp: now() - 1 }), 'x', 401, 'Token expired'],
    ['on a channel that is not allowed', () => path({ mode: 'w', channels: ['a'] }), 'x', 403, 'No allowed channels'],
    ['from who may only read', () => path({ mode: 'r' }), 'x', 403, 'The mode of the token does not allow this'],
    ['with a NUL', () => path({ mode: 'w' }), 'a\0b', 400, 'Messages are UTF-8 text without NUL'],
    ['that is not UTF-8', () => path({ mode: 'w' }), new Uint8Array([0xff]), 400, 'Messages are UTF-8 text without NUL'],
    ['that is too large for NOTIFY', () => path({ mode: 'w' }), 'x'.repeat(8000), 413, 'Too large for NOTIFY'],
    ['that is larger than all that is read', () => path({ mode: 'w' }), 'x'.repeat(3_000_000), 413, 'Too large for NOTIFY'],
  ] as [string, () => Promise<string>, BodyInit, number, string][])('%s: %#', async (_, target, body, status, text) => {
    const from = program.stderr().length
    const answer = await post(at(await target()), body)
    expect({ status: answer.status, text: answer.text }).toEqual({ status, text: expect.stringContaining(text) })
    expect(answer.headers.get('Content-Type')).toStartWith('text/plain')
    await program.logged(new RegExp(`message refused status=${status} reason="${text}`), from)
  })

  test('in chunks that grow too large, before it has ended', async () => {
    const socket = connectSocket(program.port, '127.0.0.1')
    socket.on('error', () => undefined)
    const answer = new Promise<string>((done) => socket.once('data', (data) => done(String(data))))
    socket.write(`POST ${await path({ mode: 'w' })} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`)
    const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`
    for (let index = 0; index < 6; index++) socket.write(chunk)
    expect(await answer).toStartWith('HTTP/1.1 413 ')
    socket.destroy()
  })

  test('by the database, with 422 and alone', async () => {
    await sql().unsafe(`create database latin_posts encoding 'LATIN1' locale 'C' template template0`)
    await using other = await start({ PGWS_DB_URI: database().uri.replace(/postgres$/, 'latin_posts') })
    const url = at(`/${await token({ mode: 'w', channels: ['a', 'b'] })}`, other)
    const texts = Array.from({ length: 40 }, (_, index) => (index % 4 === 0 ? '€' : 'é'))
    const answers = await Promise.all(texts.map((text) => post(url, text)))
    expect(answers.map(({ status }) => status)).toEqual(texts.map((text) => (text === '€' ? 422 : 204)))
    expect(answers[0]?.text).toBe('The database refused the message')
  })

  test('until the first LISTEN stands', async () => {
    await using waiting = launch({ PGWS_DB_URI: 'postgres://u@127.0.0.1:1/d' })
    const answer = await post(`http://127.0.0.1:${await waiting.bound()}${await path({ mode: 'w' })}`, 'x')
    expect({ status: answer.status, again: answer.headers.get('Retry-After') }).toEqual({ status: 503, again: '1' })
  })

  test('above PGWS_MAX_MESSAGES_PER_SECOND, counted by token, with the time to come again', async () => {
    await using slow = await start({ PGWS_DB_URI: database().uri, PGWS_MAX_MESSAGES_PER_SECOND: '5' })
    const url = at(await path({ mode: 'w', sub: 'hasty' }), slow)
    const answers = await Promise.all(Array.from({ length: 8 }, () => post(url, 'x')))
    const refused = answers.filter(({ status }) => status === 429)
    expect(answers.filter(({ status }) => status === 204).length).toBe(5)
    expect(refused.map(({ headers }) => headers.get('Retry-After'))).toEqual(['1', '1', '1'])
    expect(refused[0]?.text).toContain('PGWS_MAX_MESSAGES_PER_SECOND')
    expect((await post(at(await path({ mode: 'w', sub: 'calm' }), slow), 'x')).status).toBe(204)
    await Bun.sleep(1000)
    expect((await post(url, 'x')).status).toBe(204)
  })
})

describe('while the database is away', () => {
  let server: Postgres
  beforeAll(async () => {
    server = await startPostgres()
  })
  afterAll(() => server.stop())

  test('a POST waits with the others, and readers of a stream are told what they may have missed', async () => {
    await using away = await start({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: '1000' })
    const given = await token({ mode: 'rw', channels: ['one', 'two'] })
    await using stream = await openStream(at(`/${given}`, away))
    await using socket = await connect(`${away.origin}/${given}`, { protocols: ['pgws'] })
    const url = at(`/one/${given}`, away)
    expect((await post(url, 'before')).status).toBe(204)
    // What is committed may be on its way to the readers yet.
    expect(await stream.next()).toEqual({ event: 'message', data: await socket.next(), id: '' })
    await server.stop('immediate')
    await away.logged(/listener lost/)
    let isAnswered = false
    const posted = post(url, 'meanwhile').then((answer) => {
      isAnswered = true
      return answer
    })
    await Bun.sleep(300)
    expect(isAnswered).toBe(false)
    await server.start()
    expect((await posted).status).toBe(204)
    const events = await stream.take(3)
    const told = await socket.take(3)
    expect(events.slice(0, 2)).toEqual(
      told.slice(0, 2).map((text) => {
        const { event, ...data } = JSON.parse(text)
        return { event, data: JSON.stringify(data), id: '' }
      }),
    )
    expect(events.slice(0, 2).map(({ data }) => JSON.parse(data).channel)).toEqual(['one', 'two'])
    expect(payloadOf(events[2]?.data ?? '')).toBe('meanwhile')
  })

  test('a POST that a drain finds waiting is sent first, and one that comes during it is refused', async () => {
    const draining = await start({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: '1000', PGWS_SHUTDOWN_TIMEOUT: '8000' })
    const url = at(`/one/${await token({ mode: 'rw' })}`, draining)
    const socket = connectSocket(draining.port, '127.0.0.1')
    let received = ''
    socket.on('data', (data) => {
      received += data
    })
    socket.on('error', () => undefined)
    const head = `POST ${new URL(url).pathname} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n`
    socket.write(`${head}a`)
    await until(() => received.includes(' 204 '))
    await server.stop('immediate')
    await draining.logged(/listener lost/)
    const posted = post(url, 'waits')
    socket.write(head)
    await Bun.sleep(100)
    draining.signal('SIGTERM')
    await draining.logged(/draining/)
    socket.write('b')
    await until(() => received.includes(' 503 '))
    expect(received).toEndWith('Shutting down')
    await server.start()
    expect((await posted).status).toBe(204)
    expect(await draining.exited).toBe(0)
    socket.destroy()
  })
})
