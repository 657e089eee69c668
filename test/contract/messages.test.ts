import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import postgres from 'postgres'
import { type Client, connect, handshake, payloadOf } from '../support/client.ts'
import { listenTo } from '../support/notified.ts'
import { type Program, start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { bytes, token, tokenOfText } from '../support/token.ts'

const LISTEN_CHANNEL = 'messages-listener'

let program: Program
beforeAll(async () => {
  program = await start({ PGWS_DB_URI: database().uri, PGWS_LISTEN_CHANNEL: LISTEN_CHANNEL, PGWS_META_CHANNEL: 'server-info' })
})
afterAll(() => program.stop())

const open = async (mode: string, ...channels: string[]): Promise<Client> =>
  connect(`${program.origin}/${await token({ mode, channels })}`)
const notify = (text: string) => sql().notify(LISTEN_CHANNEL, text)

/** Messages that come over the database's channel while `act` runs. */
async function heard(count: number, act: () => unknown, channel = LISTEN_CHANNEL): Promise<string[]> {
  await using notified = await listenTo(sql(), (text) => text.includes('"WebsocketMessage"'), channel)
  await act()
  await notified.reached(count)
  return [...notified.texts]
}

describe('a client message', () => {
  test('becomes a notification with claims, event, payload and channel', async () => {
    const name = unique('envelope')
    await using client = await connect(
      `${program.origin}/${await token({ mode: 'w', channels: [name], sub: 'ada', nested: { a: [1] } })}`,
    )
    const before = Date.now() / 1000
    const [text = ''] = await heard(1, () => client.send('as "sent"\n'))
    const { claims, ...rest } = JSON.parse(text)
    expect(rest).toEqual({ event: 'WebsocketMessage', payload: 'as "sent"\n', channel: name })
    expect(claims).toEqual({
      mode: 'w',
      channels: [name],
      sub: 'ada',
      nested: { a: [1] },
      message_delivered_at: expect.any(Number),
    })
    expect(claims.message_delivered_at).toBeGreaterThan(before - 0.01)
    expect(claims.message_delivered_at).toBeLessThan(Date.now() / 1000 + 0.01)
    expect(text).toMatch(/"message_delivered_at":\d+\.\d{6}\}/)
  })
  test('carries numbers of its claims digit for digit', async () => {
    const claims = `{"mode":"rw","channel":"digits","id":12345678901234567890,"x":1.50}`
    await using client = await connect(`${program.origin}/${tokenOfText(claims)}`)
    client.send('x')
    expect(await client.next()).toContain('"id":12345678901234567890,"x":1.50')
  })
  test('of a connection on several channels is one notification a channel', async () => {
    const names = [unique('several'), unique('several')]
    await using client = await open('w', ...names)
    const texts = await heard(2, () => client.send('x'))
    expect(texts.map((text) => JSON.parse(text).channel)).toEqual(names)
  })
  test.each([[''], ['x'.repeat(7000)], ['💶🦄 ünï\u2028\u0001"\\'], ['{"channel":"other"}']])(
    'like %.20p arrives as it was sent',
    async (text) => {
      await using client = await open('rw', unique('text'))
      client.send(text)
      expect(payloadOf(await client.next())).toBe(text)
    },
  )
  test('in binary is taken as UTF-8 text', async () => {
    await using client = await open('rw', unique('binary'))
    client.send(bytes('grüße'))
    expect(payloadOf(await client.next())).toBe('grüße')
  })
  test('without leave to write is ignored, and the connection stays', async () => {
    const name = unique('ignored')
    await using reader = await open('r', name)
    await using writer = await open('w', name)
    reader.send('not allowed')
    for (const text of ['allowed', 'again']) {
      writer.send(text)
      expect(payloadOf(await reader.next())).toBe(text)
    }
  })
  test('does not reach a connection that may only write', async () => {
    const name = unique('writer')
    await using writer = await open('w', name)
    await using reader = await open('r', name)
    writer.send('x')
    await reader.next()
    await notify(`{"channel":"${name}"}`)
    await reader.next()
    expect(writer.waiting).toBe(0)
  })
})

describe('a message that cannot be sent', () => {
  test('is too large at 8000 bytes of envelope and closes with 1009', async () => {
    const name = unique('large')
    await using probe = await open('rw', name)
    probe.send('')
    const empty = Buffer.byteLength(await probe.next())
    probe.send('x'.repeat(7999 - empty))
    expect(Buffer.byteLength(await probe.next())).toBe(7999)
    probe.send('x'.repeat(8000 - empty))
    expect(await probe.closed).toEqual({ code: 1009, reason: expect.stringContaining('8000 bytes') })
  })
  test('far too large closes with 1009 as well', async () => {
    await using client = await open('w', unique('huge'))
    client.send('x'.repeat(100_000))
    expect(await client.closed).toEqual({ code: 1009, reason: expect.stringContaining('8000 bytes') })
    await using another = await open('w', unique('huge'))
    another.send('x'.repeat(1_000_000))
    expect((await another.closed).code).toBe(1009)
  })
  test('holds a NUL or no UTF-8 and closes with 1007', async () => {
    for (const message of ['a\0b', new Uint8Array([0x66, 0xff, 0xfe]), new Uint8Array([0xed, 0xa0, 0x80])]) {
      await using client = await open('rw', unique('nul'))
      client.send(message)
      expect(await client.next().catch(() => client.closed)).toEqual({
        code: 1007,
        reason: 'Messages are UTF-8 text without NUL',
      })
    }
  })
  test('is refused by the database, closes its sender with 1011, takes no other down, and nothing overtakes', async () => {
    await sql().unsafe(`create database latin encoding 'LATIN1' locale 'C' template template0`)
    await using other = await start({ PGWS_DB_URI: database().uri.replace(/postgres$/, 'latin') })
    const connected = async (mode: string) => connect(`${other.origin}/chat/${await token({ mode })}`)
    await using reader = await connected('r')
    await using good = await connected('w')
    const bad = await Promise.all(Array.from({ length: 8 }, () => connected('w')))
    // So many that batches are under way behind others that hold a bad one.
    const texts = Array.from({ length: 8000 }, (_, index) => `é ${index}`)
    for (const [index, text] of texts.entries()) {
      good.send(text)
      if (index % 1000 === 500) bad[Math.floor(index / 1000)]?.send('not in Latin-1: €')
    }
    for (const { closed } of bad) expect(await closed).toEqual({ code: 1011, reason: 'The database refused the message' })
    expect((await reader.take(texts.length)).map(payloadOf)).toEqual(texts)
    good.send('still here')
    expect(payloadOf(await reader.next())).toBe('still here')
  })
})

describe('order and number', () => {
  test('of 2,000 messages of one sender are kept', async () => {
    await using client = await open('rw', unique('order'))
    for (let index = 0; index < 2000; index++) client.send(String(index))
    expect((await client.take(2000)).map(payloadOf)).toEqual(Array.from({ length: 2000 }, (_, index) => String(index)))
  })
  test.each([[1], [20]])('of 1,000 identical messages from each of %d clients with one token are kept', async (count) => {
    const channel = unique('burst')
    const url = `${program.origin}/${await token({ mode: 'w', channels: [channel] })}`
    await using reader = await open('r', channel)
    const writers = await Promise.all(Array.from({ length: count }, () => connect(url)))
    for (let index = 0; index < 1000; index++) for (const writer of writers) writer.send('same')
    const texts = await reader.take(count * 1000)
    expect(texts.every((text) => payloadOf(text) === 'same')).toBe(true)
    const stamps = texts
      .map((text) => /"message_delivered_at":(\d+)\.(\d{6})/.exec(text))
      .map((found) => Number(`${found?.[1]}${found?.[2]}`))
    expect(stamps.every((stamp, index) => index === 0 || stamp > (stamps[index - 1] ?? 0))).toBe(true)
    await Promise.all(writers.map((writer) => writer.close()))
    expect(reader.waiting).toBe(0)
  })
})

describe('a notification', () => {
  test('goes byte for byte to every reader of its channel and to no other', async () => {
    const name = unique('bytes')
    await using one = await open('r', name)
    await using two = await open('rw', 'else', name)
    await using other = await open('r', unique('other'))
    const text = ` {\n "payload" : "grüße 💶", "n":1.10, "channel":"${name}" } `
    await notify(text)
    await notify(`{"channel":"${name}","last":true}`)
    for (const client of [one, two]) expect(await client.take(2)).toEqual([text, `{"channel":"${name}","last":true}`])
    expect(other.waiting).toBe(0)
  })
  test.each([['plain text'], ['[1,2]'], ['{"channel":7}'], ['{"event":"x"}'], ['"text"'], ['{"channel":"x"'], ['']])(
    'like %p goes to the channel that is named like the listen channel',
    async (text) => {
      await using client = await open('r', LISTEN_CHANNEL)
      await notify(text)
      expect(await client.next()).toBe(text)
    },
  )
  test('for a name with a lone surrogate reaches nobody: no client can open one, and U+FFFD is another name', async () => {
    await using client = await open('r', '\ufffd', LISTEN_CHANNEL, 'marker')
    for (const name of ['\ud800', '\udbff']) {
      const path = `/${await token({ mode: 'r', channels: [name] })}`
      expect(await handshake(program.port, path)).toMatchObject({ status: 403, body: 'No allowed channels' })
      await notify(JSON.stringify({ channel: name }))
    }
    await notify('{"channel":"marker"}')
    expect(await client.next()).toBe('{"channel":"marker"}')
  })
  test('of identical text in another transaction comes each time', async () => {
    const name = unique('again')
    await using client = await open('r', name)
    for (let index = 0; index < 3; index++) await notify(`{"channel":"${name}"}`)
    expect(await client.take(3)).toHaveLength(3)
  })
  test('reaches a client of each of two servers, and a message of one the readers of the other', async () => {
    await using second = await start({ PGWS_DB_URI: database().uri, PGWS_LISTEN_CHANNEL: LISTEN_CHANNEL })
    const name = unique('servers')
    const path = `/${name}/${await token({ mode: 'rw' })}`
    await using here = await connect(`${program.origin}${path}`)
    await using there = await connect(`${second.origin}${path}`)
    await notify(`{"channel":"${name}"}`)
    expect([await here.next(), await there.next()]).toEqual([`{"channel":"${name}"}`, `{"channel":"${name}"}`])
    here.send('from here')
    expect([await here.next(), await there.next()].map(payloadOf)).toEqual(['from here', 'from here'])
  })
})

test('each opened connection sends ConnectionOpen to the meta channel, with its claims and its channels', async () => {
  await using watcher = await open('r', 'server-info')
  await watcher.next()
  await using _opened = await connect(`${program.origin}/${await token({ mode: 'r', channels: ['m-1', 'm,2'], sub: 'ada' })}`)
  expect(JSON.parse(await watcher.next())).toEqual({
    claims: { mode: 'r', channels: ['m-1', 'm,2'], sub: 'ada', message_delivered_at: expect.any(Number) },
    event: 'ConnectionOpen',
    payload: 'm-1,m,2',
    channel: 'server-info',
    client: expect.stringMatching(/^[\da-z]{8}$/),
  })
})

test('the pool uses no more sessions than PGWS_POOL_SIZE, and nothing of the checks is heard on the listen channel', async () => {
  const uri = `${database().uri}?application_name=pool-size`
  await using other = await start({
    PGWS_DB_URI: uri,
    PGWS_POOL_SIZE: '1',
    PGWS_LISTEN_CHANNEL: 'pool',
    PGWS_CHECK_LISTENER_INTERVAL: '100',
  })
  await using client = await connect(`${other.origin}/chat/${await token({ mode: 'rw' })}`)
  const outside = postgres(database().uri, { max: 1 })
  const heardBeside: string[] = []
  await outside.listen('pool', (text) => heardBeside.push(text))
  for (let index = 0; index < 500; index++) client.send(String(index))
  await client.take(500)
  const [found] = await sql()`select count(*)::int as sessions from pg_stat_activity where application_name = 'pool-size'`
  expect(found?.sessions).toBe(2)
  expect(heardBeside.every((text) => text.includes('WebsocketMessage'))).toBe(true)
  await outside.end()
})
