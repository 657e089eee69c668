import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { connect, handshake, payloadOf } from '../support/client.ts'
import { converse } from '../support/commands.ts'
import { type Program, start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { bytes, now, token } from '../support/token.ts'

let program: Program
beforeAll(async () => {
  program = await start({ PGWS_DB_URI: database().uri, PGWS_MAX_SUBSCRIPTIONS: '5', PGWS_DATABASE_CHANNELS: 'direct-*' })
})
afterAll(async () => void (await program.stop()))

const notify = (channel: string, text: string) =>
  sql()`select pg_notify('postgres-websockets-listener', ${JSON.stringify({ channel, text })})`
const message = (channel: string, text: string) => ({ event: 'Message', channel, text: JSON.stringify({ channel, text }) })

describe('opening', () => {
  test.each([
    [['pgws', 'pgws.json'], 'pgws.json'],
    [['other', 'pgws.json', 'pgws'], 'pgws.json'],
    [['pgws', 'other'], 'pgws'],
  ])('of %p, %s is selected, wherever the token stands', async (names, selected) => {
    const text = await token({ mode: 'r' })
    for (const offer of [
      [`pgws.token.${text}`, ...names],
      [...names, `pgws.token.${text}`],
    ])
      expect(
        (await handshake(program.port, '/a', { 'Sec-WebSocket-Protocol': offer.join(', ') })).headers.get(
          'Sec-WebSocket-Protocol',
        ),
      ).toBe(selected)
    const path = `/a/${text}`
    expect(
      (await handshake(program.port, path, { 'Sec-WebSocket-Protocol': names.join(', ') })).headers.get('Sec-WebSocket-Protocol'),
    ).toBe(selected)
  })

  test('says first what the connection may do, and what it is subscribed to', async () => {
    const exp = now() + 3600
    await using named = await converse(program, { claims: { mode: 'rw', channels: ['a', 'b'], exp }, path: '/' })
    expect(named.connected).toEqual({ event: 'Connected', mode: 'rw', channels: ['a', 'b'], expires: exp, position: null })
    await using path = await converse(program, { claims: { mode: 'r', channels: ['a', 'b c'] }, path: '/b%20c' })
    expect(path.connected).toEqual({ event: 'Connected', mode: 'r', channels: ['b c'], expires: null, position: null })
    await using writer = await converse(program, { claims: { mode: 'w', channel: 'a' }, path: '/' })
    expect(writer.connected).toMatchObject({ mode: 'w', channels: [] })
  })

  test('with subscribe=none starts with no channel, also where the token names none', async () => {
    for (const claims of [{ mode: 'rw' }, { mode: 'rw', channels: ['a'] }]) {
      await using client = await converse(program, { claims, path: '/?x=1&subscribe=none' })
      expect(client.connected).toMatchObject({ channels: [] })
    }
    await using path = await converse(program, { claims: { mode: 'r', channel: 'a' }, path: '/a?subscribe=none' })
    expect(path.connected).toMatchObject({ channels: [] })
  })

  test.each([
    ['a token that names none, without subscribe=none', { mode: 'rw' }, '/', 'No allowed channels'],
    ['an empty list of channels', { mode: 'rw', channels: [] }, '/?subscribe=none', 'No allowed channels'],
    ['a channel that is not allowed', { mode: 'rw', channel: 'a' }, '/b?subscribe=none', 'No allowed channels'],
    [
      'more channels than PGWS_MAX_SUBSCRIPTIONS',
      { mode: 'r', channels: ['1', '2', '3', '4', '5', '6'] },
      '/',
      'Too many subscriptions: PGWS_MAX_SUBSCRIPTIONS is the limit',
    ],
  ])('is refused with 403 for %s', async (_, claims, path, body) => {
    const offer = { 'Sec-WebSocket-Protocol': `pgws.json, pgws.token.${await token(claims)}` }
    expect(await handshake(program.port, path, offer)).toMatchObject({ status: 403, body })
  })

  test('subscribe=none is nothing to who does not offer pgws.json', async () => {
    const [channel, text] = [unique('old'), await token({ mode: 'r' })]
    await using client = await connect(`${program.origin}/${channel}/${text}?subscribe=none`, { protocols: ['pgws'] })
    await notify(channel, 'x')
    expect(await client.next()).toBe(JSON.stringify({ channel, text: 'x' }))
  })
})

describe('subscribe', () => {
  test('is answered ahead of the messages of the channel, which come with its name', async () => {
    const [one, other] = [unique('one'), unique('other')]
    await using client = await converse(program, { path: `/${one}` })
    expect(await client.ask({ id: 1, command: 'subscribe', channel: other })).toEqual([
      { id: 1, event: 'Subscribed', channel: other, position: null },
    ])
    await notify(other, '1 "\\ \u2028 ü')
    await notify(one, '2')
    expect(await client.take(2)).toEqual([message(other, '1 "\\ \u2028 ü'), message(one, '2')])
  })

  test('again is answered again, and no message comes twice', async () => {
    const channel = unique('again')
    await using client = await converse(program)
    const answers = await client.ask({ id: 'x', command: 'subscribe', channel }, { command: 'subscribe', channel })
    expect(answers).toEqual([
      { id: 'x', event: 'Subscribed', channel, position: null },
      { event: 'Subscribed', channel, position: null },
    ])
    for (const text of ['1', '2']) await notify(channel, text)
    expect(await client.take(2)).toEqual([message(channel, '1'), message(channel, '2')])
  })

  test('of a database channel listens to it, and who leaves takes it from nobody else', async () => {
    const channel = unique('direct')
    await using client = await converse(program)
    await using other = await converse(program, { path: `/${channel}` })
    expect(await client.ask({ command: 'subscribe', channel })).toMatchObject([{ event: 'Subscribed' }])
    await sql().notify(channel, 'as it is')
    const expected = { event: 'Message', channel, text: 'as it is' }
    expect([await client.next(), await other.next()]).toEqual([expected, expected])
    expect(await client.ask({ command: 'unsubscribe', channel })).toMatchObject([{ event: 'Unsubscribed' }])
    await sql().notify(channel, 'for the other')
    expect(await other.next()).toMatchObject({ text: 'for the other' })
    expect(await client.ask({ command: 'ping' })).toEqual([{ event: 'Pong' }])
  })

  test('without a journal is live, and a position of one is told to be gone', async () => {
    const channel = unique('since')
    await using client = await converse(program)
    expect(await client.ask({ id: 1, command: 'subscribe', channel, last: 50 })).toMatchObject([{ id: 1, event: 'Subscribed' }])
    client.say({ id: 2, command: 'subscribe', channel: `${channel}-2`, since: '1f.1-7' })
    expect(await client.take(2)).toMatchObject([
      { id: 2, event: 'Subscribed', channel: `${channel}-2` },
      { event: 'MessagesMissed', channel: `${channel}-2`, from: null, to: expect.any(Number) },
    ])
  })

  test('above PGWS_MAX_SUBSCRIPTIONS is refused, until one is left', async () => {
    await using client = await converse(program)
    const subscribe = (channel: number) => ({ id: channel, command: 'subscribe', channel: `max-${channel}` })
    const answers = await client.ask(...[1, 2, 3, 4, 5, 6].map(subscribe))
    expect(answers.map(({ event }) => event)).toEqual([...Array(5).fill('Subscribed'), 'Refused'])
    expect(answers[5]).toEqual({
      id: 6,
      event: 'Refused',
      code: 'TOO_MANY_SUBSCRIPTIONS',
      reason: 'Too many subscriptions: PGWS_MAX_SUBSCRIPTIONS is the limit',
    })
    expect(await client.ask({ command: 'unsubscribe', channel: 'max-3' }, subscribe(6))).toMatchObject([
      { event: 'Unsubscribed' },
      { id: 6, event: 'Subscribed' },
    ])
  })

  test('needs r, and a channel that the token allows', async () => {
    await using writer = await converse(program, { claims: { mode: 'w' } })
    expect(await writer.ask({ id: 1, command: 'subscribe', channel: 'a' })).toMatchObject([
      { id: 1, event: 'Refused', code: 'MODE_NOT_ALLOWED' },
    ])
    await using reader = await converse(program, { claims: { mode: 'r', channels: ['a', 'b'] }, path: '/a' })
    expect(await reader.ask({ command: 'subscribe', channel: 'c' }, { command: 'subscribe', channel: 'b' })).toMatchObject([
      { event: 'Refused', code: 'CHANNEL_NOT_ALLOWED' },
      { event: 'Subscribed', channel: 'b' },
    ])
  })
})

describe('unsubscribe', () => {
  test('is answered, and nothing of the channel comes behind it', async () => {
    const [left, kept] = [unique('left'), unique('kept')]
    await using client = await converse(program, { path: `/${left}` })
    await client.ask({ command: 'subscribe', channel: kept })
    await using other = await converse(program, { path: `/${left}` })
    await notify(left, 'before')
    expect(await client.next()).toEqual(message(left, 'before'))
    expect(await client.ask({ id: 2, command: 'unsubscribe', channel: left })).toEqual([
      { id: 2, event: 'Unsubscribed', channel: left },
    ])
    await notify(left, 'after')
    await notify(kept, 'after')
    expect(await client.next()).toEqual(message(kept, 'after'))
    expect(await other.take(2)).toEqual([message(left, 'before'), message(left, 'after')])
  })

  test('and subscribe, again and again under load, let no message through in between', async () => {
    const channel = unique('toggle')
    await using writer = await converse(program, { claims: { mode: 'w' } })
    await using client = await converse(program)
    let isGoing = true
    const writing = (async () => {
      while (isGoing) await writer.ask(...Array.from({ length: 50 }, () => ({ command: 'publish', channel, text: 'x' })))
    })()
    const rounds = 500
    const asking = (async () => {
      for (let round = 0; round < rounds; round++) {
        client.say({ command: 'subscribe', channel })
        if (round % 3) await Bun.sleep(1)
        client.say({ command: 'unsubscribe', channel })
        if (round % 5) await Bun.sleep(0)
      }
      client.say({ command: 'ping' })
    })()
    let isSubscribed = false
    const seen = { Message: 0, astray: 0 }
    for (let event = await client.next(); event.event !== 'Pong'; event = await client.next()) {
      if (event.event === 'Message') seen[isSubscribed ? 'Message' : 'astray']++
      else isSubscribed = event.event === 'Subscribed'
    }
    isGoing = false
    await Promise.all([asking, writing])
    expect(seen.Message).toBeGreaterThan(100)
    expect(seen.astray).toBe(0)
  })

  test('of a channel that is not subscribed is refused', async () => {
    await using client = await converse(program)
    expect(await client.ask({ id: 2, command: 'unsubscribe', channel: 'a' })).toEqual([
      { id: 2, event: 'Refused', code: 'NOT_SUBSCRIBED', reason: 'Not subscribed to this channel' },
    ])
  })
})

describe('publish', () => {
  test('is answered once the database has committed, and reaches readers in an envelope as any message', async () => {
    const channel = unique('publish')
    await using reader = await connect(`${program.origin}/${channel}/${await token({ mode: 'r' })}`)
    await using client = await converse(program, { claims: { mode: 'w', sub: 'me' } })
    expect(await client.ask({ id: 3, command: 'publish', channel, text: 'hello "ü"', key: 'k' })).toEqual([
      { id: 3, event: 'Published', channel },
    ])
    expect(JSON.parse(await reader.next())).toEqual({
      claims: { mode: 'w', sub: 'me', message_delivered_at: expect.any(Number) },
      event: 'WebsocketMessage',
      payload: 'hello "ü"',
      channel,
    })
  })

  test('of ten thousand at once is answered for each, in their order, with what was refused in its place', async () => {
    const channel = unique('many')
    await using reader = await connect(`${program.origin}/${channel}/${await token({ mode: 'r' })}`)
    await using client = await converse(program, { claims: { mode: 'w', channel }, path: '/' })
    const count = 10_000
    const isLarge = (id: number) => id % 1000 === 500
    for (let id = 0; id < count; id++)
      client.say({ id, command: 'publish', channel, text: isLarge(id) ? 'x'.repeat(8000) : String(id) })
    const answers = await client.take(count)
    expect(answers.map(({ id }) => id)).toEqual(Array.from({ length: count }, (_, id) => id))
    expect(answers.filter(({ event }) => event === 'Refused').map(({ id, code }) => ({ id, code }))).toEqual(
      Array.from({ length: 10 }, (_, index) => ({ id: index * 1000 + 500, code: 'TOO_LARGE' })),
    )
    const texts = (await reader.take(count - 10)).map(payloadOf)
    expect(texts).toEqual(
      Array.from({ length: count }, (_, id) => id)
        .filter((id) => !isLarge(id))
        .map(String),
    )
  })

  test('needs w, a channel that the token allows, subscribed or not, and a text without NUL or halves of characters', async () => {
    await using reader = await converse(program, { claims: { mode: 'r' } })
    expect(await reader.ask({ id: 1, command: 'publish', channel: 'a', text: 'x' })).toMatchObject([
      { id: 1, code: 'MODE_NOT_ALLOWED' },
    ])
    await using client = await converse(program, { claims: { mode: 'rw', channels: ['a', 'b'] }, path: '/a' })
    const publish = (channel: string, text: string) => ({ command: 'publish', channel, text })
    const answers = await client.ask(publish('c', 'x'), publish('b', 'a\0b'), publish('b', '\ud800'), publish('b', ''))
    expect(answers.map(({ event, code }) => code ?? event)).toEqual(['CHANNEL_NOT_ALLOWED', 'NOT_TEXT', 'NOT_TEXT', 'Published'])
  })
})

describe('token', () => {
  const renewal = async (claims: Record<string, unknown>) => ({ id: 4, command: 'token', token: await token(claims) })

  test('puts the connection under a new one, which ends what it does not allow, behind its answer', async () => {
    const names = ['a', 'b', 'c'].map((name) => unique(name))
    const [a, b, c] = names as [string, string, string]
    await using client = await converse(program, { claims: { mode: 'r', channels: [a, b] }, path: '/' })
    const exp = now() + 1000
    client.say(await renewal({ mode: 'rw', channels: [b, c], exp }))
    expect(await client.take(2)).toEqual([
      { id: 4, event: 'TokenAccepted', expires: exp },
      { event: 'Unsubscribed', channel: a, code: 'CHANNEL_NOT_ALLOWED' },
    ])
    for (const channel of names) await notify(channel, 'x')
    expect(await client.next()).toEqual(message(b, 'x'))
    const asked = [
      { command: 'subscribe', channel: a },
      { command: 'subscribe', channel: c },
      { command: 'publish', channel: c, text: 'now it may' },
    ]
    // Its own message and the answer may come in any order.
    const [refused, subscribed, ...rest] = await client.ask(...asked, { command: 'ping' })
    rest.push(await client.next())
    expect([refused?.event, subscribed?.event, ...rest.map(({ event }) => event).sort()]).toEqual([
      'Refused',
      'Subscribed',
      'Message',
      'Pong',
      'Published',
    ])
  })

  test('without r ends every subscription, and one that allows more subscribes to nothing', async () => {
    await using client = await converse(program, { claims: { mode: 'r', channels: ['a'] }, path: '/' })
    client.say(await renewal({ mode: 'w', channels: ['a'] }))
    expect(await client.take(2)).toEqual([
      { id: 4, event: 'TokenAccepted', expires: null },
      { event: 'Unsubscribed', channel: 'a', code: 'MODE_NOT_ALLOWED' },
    ])
    expect(await client.ask(await renewal({ mode: 'rw' }), { command: 'unsubscribe', channel: 'a' })).toMatchObject([
      { event: 'TokenAccepted' },
      { event: 'Refused', code: 'NOT_SUBSCRIBED' },
    ])
  })

  test('that is refused leaves the connection under the old one', async () => {
    await using client = await converse(program, { claims: { mode: 'rw', channel: 'a' }, path: '/' })
    const answers = await client.ask(
      { id: 1, command: 'token', token: 'none' },
      { id: 2, command: 'token', token: await token({ mode: 'rw' }, bytes('another-key-another-key-another-key-')) },
      await renewal({ mode: 'rw', exp: now() - 1 }),
      await renewal({ mode: 'rw', channels: [] }),
      await renewal({ mode: 'x' }),
      { command: 'publish', channel: 'b', text: 'x' },
      { command: 'unsubscribe', channel: 'a' },
    )
    expect(answers.map(({ event, code }) => code ?? event)).toEqual([
      'TOKEN_MALFORMED',
      'TOKEN_NOT_VERIFIED',
      'TOKEN_EXPIRED',
      'CHANNEL_NOT_ALLOWED',
      'MODE_UNKNOWN',
      'CHANNEL_NOT_ALLOWED',
      'Unsubscribed',
    ])
  })

  test('that ends soon is announced halfway, once, and ends the connection with 3001 unless another comes', async () => {
    const exp = now() + 3
    await using client = await converse(program, { claims: { mode: 'r', exp } })
    await using renewed = await converse(program, { claims: { mode: 'r', exp } })
    for (const each of [client, renewed]) expect(await each.next()).toEqual({ event: 'TokenExpiring', expires: exp })
    expect(Date.now() / 1000).toBeLessThan(exp)
    expect(await renewed.ask(await renewal({ mode: 'r', exp: exp + 3600 }))).toMatchObject([{ expires: exp + 3600 }])
    expect(await client.client.closed).toMatchObject({ code: 3001 })
    expect(client.client.waiting).toBe(0)
    expect(await renewed.ask({ command: 'ping' })).toEqual([{ event: 'Pong' }])
  })
})

describe('a frame', () => {
  test.each([
    ['{', 'COMMAND_MALFORMED', undefined],
    ['[]', 'COMMAND_MALFORMED', undefined],
    ['null', 'COMMAND_MALFORMED', undefined],
    ['{"id":1}', 'COMMAND_MALFORMED', 1],
    ['{"id":"x","command":"dance"}', 'COMMAND_UNKNOWN', 'x'],
    ['{"id":{},"command":"ping"}', 'COMMAND_MALFORMED', undefined],
    ['{"id":2,"command":"subscribe"}', 'COMMAND_MALFORMED', 2],
    ['{"id":2,"command":"subscribe","channel":"a","since":"yesterday"}', 'POSITION_MALFORMED', 2],
    ['{"id":2,"command":"subscribe","channel":"a","last":0}', 'COMMAND_MALFORMED', 2],
  ])('of %s is refused with %s, and the connection stays', async (text, code, id) => {
    await using client = await converse(program)
    const [answer, pong] = await client.ask(text, { id: -1.5, command: 'ping' })
    expect(answer).toEqual({ ...(id === undefined ? {} : { id }), event: 'Refused', code, reason: expect.any(String) })
    expect(pong).toEqual({ id: -1.5, event: 'Pong' })
  })

  test('of bytes is text, unless it is no UTF-8', async () => {
    await using client = await converse(program)
    client.client.send(bytes('{"command":"ping"}'))
    client.client.send(new Uint8Array([0xff]))
    expect(await client.take(2)).toMatchObject([{ event: 'Pong' }, { event: 'Refused', code: 'NOT_TEXT' }])
  })
})

test('other clients of a channel get byte for byte what they got, also on a channel that is named like the topic of another form', async () => {
  const channel = unique('old')
  const access = await token({ mode: 'rw' })
  await using all = new AsyncDisposableStack()
  const open = async (name: string) => {
    const path = `/${encodeURIComponent(name)}`
    const plain = all.use(await connect(`${program.origin}${path}/${access}`))
    const pgws = all.use(await connect(`${program.origin}${path}/${access}`, { protocols: ['pgws'] }))
    return { name, plain, pgws, json: all.use(await converse(program, { path })) }
  }
  const readers = await Promise.all([channel, `json:${channel}`, `text:${channel}`, `text:json:${channel}`].map(open))
  // What reaches a reader of another channel is there ahead of what comes there in the second round.
  for (const text of ['1 \u2028 ü ', '2']) {
    for (const { name, plain, pgws, json } of readers) {
      await notify(name, text)
      const raw = JSON.stringify({ channel: name, text })
      expect([await plain.next(), await pgws.next(), await json.next()]).toEqual([raw, raw, message(name, text)])
    }
  }
  for (const { name, plain, pgws, json } of readers) {
    json.say({ command: 'publish', channel: name, text: 'from json' })
    expect([await plain.next(), await pgws.next()].map(payloadOf)).toEqual(['from json', 'from json'])
    plain.send('{"command":"ping"}')
    expect([await plain.next(), await pgws.next()].map(payloadOf)).toEqual(['{"command":"ping"}', '{"command":"ping"}'])
  }
})

test('who sends faster than PGWS_MAX_MESSAGES_PER_SECOND is closed with 1008, whatever the commands are', async () => {
  await using limited = await start({ PGWS_DB_URI: database().uri, PGWS_MAX_MESSAGES_PER_SECOND: '20' })
  await using client = await converse(limited)
  for (let id = 0; id < 21; id++) client.say({ id, command: 'ping' })
  expect(await client.client.closed).toMatchObject({ code: 1008 })
  expect(client.client.waiting).toBe(20)
})

test('a publish that the database refuses is refused alone, and the connection stays', async () => {
  await sql().unsafe(`create database latin_json encoding 'LATIN1' locale 'C' template template0`)
  await using latin = await start({ PGWS_DB_URI: database().uri.replace(/\/[^/]*$/, '/latin_json') })
  await using client = await converse(latin)
  const answers = await client.ask(...['ä', '☃', 'ö'].map((text, id) => ({ id, command: 'publish', channel: 'a', text })))
  expect(answers).toEqual([
    { id: 0, event: 'Published', channel: 'a' },
    { id: 1, event: 'Refused', code: 'REFUSED_BY_DATABASE', reason: 'The database refused the message' },
    { id: 2, event: 'Published', channel: 'a' },
  ])
  expect(await client.ask({ command: 'ping' })).toEqual([{ event: 'Pong' }])
})
