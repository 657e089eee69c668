import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { connect as connectSocket } from 'node:net'
import { adminOf, metric } from '../support/admin.ts'
import { connect, payloadOf, request } from '../support/client.ts'
import { openStream } from '../support/event-source.ts'
import { launch, type Program, start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { now, token } from '../support/token.ts'
import { until } from '../support/until.ts'

let program: Program
beforeAll(async () => {
  program = await start({
    PGWS_DB_URI: database().uri,
    PGWS_ADMIN_PORT: '0',
    PGWS_META_CHANNEL: 'streams-meta',
    PGWS_META_EVENTS: 'all',
  })
})
afterAll(() => program.stop())

const at = (path: string, on = program): string => `http://127.0.0.1:${on.port}${path}`

/** Notifies texts in one transaction. */
const notify = (channel: string, ...texts: string[]) =>
  sql()`select count(pg_notify('postgres-websockets-listener', json_build_object('channel', ${channel}::text, 'payload', text)::text))
    from unnest(${texts}::text[]) as text`

describe('an event stream', () => {
  test('opens at the paths of a WebSocket, with the token in the path or as bearer', async () => {
    const channel = unique('stream')
    const given = await token({ mode: 'r', channels: [channel] })
    const headers = { Authorization: `Bearer ${given}` }
    await using inPath = await openStream(at(`/${channel}/${given}`))
    await using alone = await openStream(at(`/${given}`))
    await using asBearer = await openStream(at(`/${channel}`), { headers })
    await using all = await openStream(at('/'), { headers })
    const text = JSON.stringify({ channel, payload: 'hello' })
    await sql().notify('postgres-websockets-listener', text)
    for (const stream of [inPath, alone, asBearer, all])
      expect(await stream.next()).toEqual({ event: 'message', data: text, id: '' })
  })

  test('is never cached or held back, and says when to come again', async () => {
    await using stream = await openStream(at(`/chat/${await token({ mode: 'r' })}`))
    expect(Object.fromEntries(stream.headers)).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
      server: expect.stringMatching(/^postgres-websockets\/\d/),
    })
    await until(() => stream.retry === 1000)
  })

  test('answers HEAD with the headers only, and counts no connection for it', async () => {
    const path = `/chat/${await token({ mode: 'r' })}`
    const before = await metric(await adminOf(program), 'pgws_connections_opened_total{mode="r"}')
    const head = { Host: 'x', Accept: 'text/event-stream', Connection: 'close' }
    const answer = await request(program.port, 'HEAD', path, head)
    expect({ status: answer.status, type: answer.headers.get('Content-Type') }).toEqual({
      status: 200,
      type: 'text/event-stream',
    })
    expect(await metric(await adminOf(program), 'pgws_connections_opened_total{mode="r"}')).toBe(before)
    expect((await request(program.port, 'HEAD', '/chat/none', head)).status).toBe(401)
  })

  test.each([
    ['of several lines, however they end', 'one\ntwo\r\nthree\rfour', 'one\ntwo\nthree\nfour'],
    ['with empty lines', '\n\na\n\n', '\n\na\n\n'],
    ['that is empty', '', ''],
    ['that looks like fields', 'event: x\nid: 7\nretry: 1\n: no comment\n data: y', undefined],
    ['beyond ASCII', '\uFEFFZürich ☕ 🦄 \u2028', undefined],
  ])('carries a text %s', async (_, text, seen = text) => {
    await using direct = await start({ PGWS_DB_URI: database().uri, PGWS_DATABASE_CHANNELS: 'raw-*' })
    const channel = unique('raw')
    await using stream = await openStream(at(`/${channel}/${await token({ mode: 'r' })}`, direct))
    await sql().notify(channel, text)
    expect((await stream.next()).data).toBe(seen)
  })

  test('gets what sockets get, in order, of all its channels', async () => {
    const [one, two] = [unique('both'), unique('both')]
    const given = await token({ mode: 'rw', channels: [one, two] })
    await using stream = await openStream(at(`/${given}`))
    await using socket = await connect(`${program.origin}/${given}`)
    for (let index = 0; index < 20; index++) socket.send(String(index))
    await notify(one, ...Array.from({ length: 100 }, (_, index) => `n${index}`))
    const expected = await socket.take(140)
    expect((await stream.take(140)).map(({ data }) => data)).toEqual(expected)
  })

  test('of a token that may only write is refused', async () => {
    const stream = await openStream(at(`/chat/${await token({ mode: 'w' })}`))
    expect({ status: stream.status, text: await stream.text() }).toEqual({
      status: 403,
      text: 'The mode of the token does not allow this',
    })
  })

  test.each([
    ['a missing token', async () => '/', 401, 'Missing token'],
    ['a malformed token', async () => '/chat/abc', 401, 'Malformed token'],
    ['an expired token', async () => `/chat/${await token({ mode: 'r', exp: now() - 1 })}`, 401, 'Token expired'],
    ['another channel', async () => `/other/${await token({ mode: 'r', channels: ['chat'] })}`, 403, 'No allowed channels'],
  ] as [string, () => Promise<string>, number, string][])('of %s is refused as an upgrade is', async (_, path, status, text) => {
    const from = program.stderr().length
    const stream = await openStream(at(await path()))
    expect({ status: stream.status, text: await stream.text() }).toEqual({ status, text })
    await program.logged(new RegExp(`stream refused status=${status} reason="${text}"`), from)
  })

  test('is refused until the first LISTEN stands', async () => {
    await using waiting = launch({ PGWS_DB_URI: 'postgres://u@127.0.0.1:1/d' })
    const stream = await openStream(`http://127.0.0.1:${await waiting.bound()}/chat/${await token({ mode: 'r' })}`)
    expect({ status: stream.status, again: stream.headers.get('Retry-After') }).toEqual({ status: 503, again: '1' })
  })

  test('ends with its token behind TokenExpired', async () => {
    const exp = Math.round((Date.now() / 1000 + 1.25) * 1000) / 1000
    await using stream = await openStream(at(`/ends/${await token({ mode: 'r', exp })}`))
    expect(await stream.next()).toEqual({ event: 'TokenExpired', data: JSON.stringify({ expires: exp }), id: '' })
    expect(await stream.ended).toBe('whole')
    expect(Date.now() / 1000).toBeGreaterThanOrEqual(exp)
  })

  test('counts as a connection: in metrics, the log, meta events and PGWS_MAX_CONNECTIONS, until its client leaves', async () => {
    await using limited = await start({
      PGWS_DB_URI: database().uri,
      PGWS_ADMIN_PORT: '0',
      PGWS_MAX_CONNECTIONS: '2',
      PGWS_META_CHANNEL: 'stream-meta',
      PGWS_META_EVENTS: 'all',
    })
    const channel = unique('counts')
    await using meta = await connect(`${limited.origin}/stream-meta/${await token({ mode: 'r' })}`)
    await meta.next()
    const url = at(`/${channel}/${await token({ mode: 'r', sub: 'ada' })}`, limited)
    // Who asks for the headers alone takes no place.
    for (let index = 0; index < 3; index++)
      expect((await fetch(url, { method: 'HEAD', headers: { Accept: 'text/event-stream' } })).status).toBe(200)
    const stream = await openStream(url)
    expect(JSON.parse(await meta.next())).toMatchObject({ event: 'ConnectionOpen', payload: channel, claims: { sub: 'ada' } })
    const admin = await adminOf(limited)
    expect(await metric(admin, 'pgws_connections{mode="r"}')).toBe(2)
    const second = await openStream(url)
    expect({ status: second.status, text: await second.text() }).toEqual({ status: 503, text: 'Too many connections' })
    await stream.close()
    expect(JSON.parse(await meta.next())).toMatchObject({ event: 'ConnectionClose', payload: channel, code: 1005 })
    expect(limited.stderr()).toMatch(
      new RegExp(`client opened .* channels=${channel}[\\s\\S]*client closed .* channels=${channel} code=1005`),
    )
    expect(await metric(admin, 'pgws_connections{mode="r"}')).toBe(1)
    await using again = await openStream(url)
    expect(again.status).toBe(200)
  })

  test('whose client left while its channel was still waited for leaves nothing behind', async () => {
    await using direct = await start({
      PGWS_DB_URI: database().uri,
      PGWS_ADMIN_PORT: '0',
      PGWS_DATABASE_CHANNELS: '*',
      PGWS_MAX_CONNECTIONS: '5',
    })
    const given = await token({ mode: 'r' })
    const admin = await adminOf(direct)
    for (let index = 0; index < 20; index++) {
      const aborter = new AbortController()
      const asked = fetch(at(`/${unique('left')}/${given}`, direct), {
        headers: { Accept: 'text/event-stream' },
        signal: aborter.signal,
      }).catch(() => undefined)
      await Bun.sleep(index % 4)
      aborter.abort()
      await asked
    }
    await until(async () => (await metric(admin, 'pgws_connections{mode="r"}')) === 0)
    await using stream = await openStream(at(`/after/${given}`, direct))
    expect(stream.status).toBe(200)
  })

  test('that is read too slowly is cut without a gap, and no other', async () => {
    await using small = await start({ PGWS_DB_URI: database().uri, PGWS_SEND_BUFFER_BYTES: '65536', PGWS_ADMIN_PORT: '0' })
    const channel = unique('slow')
    const url = at(`/${channel}/${await token({ mode: 'r' })}`, small)
    await using healthy = await openStream(url)
    const stalled = await fetch(url, { headers: { Accept: 'text/event-stream' } })
    let sent = 0
    const numbers: number[] = []
    const text = 'x'.repeat(1000)
    while (sent < 60_000 && !small.stderr().includes('reads too slowly')) {
      await notify(channel, ...Array.from({ length: 200 }, (_, index) => `${sent + index} ${text}`))
      sent += 200
      // It keeps up, however busy the machine is.
      for (const { data } of await healthy.take(200)) numbers.push(Number.parseInt(JSON.parse(data).payload, 10))
    }
    expect(small.stderr()).toContain('reads too slowly')
    expect(numbers).toEqual(Array.from({ length: sent }, (_, index) => index))
    let body = ''
    let isCut = false
    try {
      for await (const chunk of stalled.body ?? []) body += Buffer.from(chunk).toString('latin1')
    } catch {
      isCut = true
    }
    expect(isCut).toBe(true)
    const seen = [...body.matchAll(/"(\d+) x{1000}"/g)].map(([, n]) => Number(n))
    expect(seen).toEqual(Array.from({ length: seen.length }, (_, index) => index))
    expect(seen.length).toBeLessThan(sent)
    const admin = await adminOf(small)
    expect(await metric(admin, 'pgws_slow_readers_disconnected_total')).toBe(1)
    expect(await metric(admin, 'pgws_connections_closed_total{code="1006"}')).toBe(1)
  })

  test('ends on SIGTERM with a time to come again, chosen at random, behind all that was sent', async () => {
    await using leaving = await start({ PGWS_DB_URI: database().uri, PGWS_SHUTDOWN_TIMEOUT: '10000' })
    const channel = unique('drain')
    const given = await token({ mode: 'rw' })
    const streams = await Promise.all(Array.from({ length: 8 }, () => openStream(at(`/${channel}/${given}`, leaving))))
    await using writer = await connect(`${leaving.origin}/${channel}/${given}`)
    writer.send('last')
    await writer.next()
    const began = performance.now()
    expect(await leaving.stop()).toBe(0)
    expect(performance.now() - began).toBeLessThan(4000)
    for (const stream of streams) {
      expect(payloadOf((await stream.next()).data)).toBe('last')
      expect(await stream.ended).toBe('whole')
      expect(stream.retry).toBeGreaterThanOrEqual(1000)
      expect(stream.retry).toBeLessThanOrEqual(5000)
    }
    expect(new Set(streams.map(({ retry }) => retry)).size).toBeGreaterThan(1)
    expect(leaving.stderr()).toContain('code=1001')
  })

  test('that names no host is opened by its path and its query', async () => {
    const channel = unique('hostless')
    const socket = connectSocket(program.port, '127.0.0.1')
    let received = ''
    socket.on('data', (data) => {
      received += data
    })
    const given = await token({ mode: 'r', channels: [channel, unique('hostless')] })
    socket.write(`GET /${channel}/${given}?protocol=pgws.json HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n`)
    await until(() => received.includes('"Connected"'))
    expect(received).toContain(`"channels":["${channel}"]`)
    socket.destroy()
  })

  test('of the protocol pgws.json gets its objects: Connected first, and the channel of each message', async () => {
    const [one, two] = [unique('objects'), unique('objects')]
    const given = await token({ mode: 'r', channels: [one, two] })
    await using stream = await openStream(at(`/${given}?protocol=pgws.json`))
    expect(JSON.parse((await stream.next()).data)).toEqual({
      event: 'Connected',
      mode: 'r',
      channels: [one, two],
      expires: null,
      position: null,
    })
    for (const channel of [one, two]) {
      const text = JSON.stringify({ channel, payload: 'a\nb' })
      await sql().notify('postgres-websockets-listener', text)
      expect(JSON.parse((await stream.next()).data)).toEqual({ event: 'Message', channel, text })
    }
  })
})
