import { afterEach, beforeEach, describe, expect, spyOn, test } from 'bun:test'
import { gzipSync } from 'node:zlib'
import { type Client, type ClientError, connect, type Missed } from '../../client-example/postgres-websockets.js'
import { type FakeNetwork, fakeNetwork, type Wire } from '../support/fake-socket.ts'

let network: FakeNetwork
let client: Client
let errors: ClientError[]
let tokens: number

/** A client that heard what the server says first. */
async function open(getToken: () => string | Promise<string> = () => `t${++tokens}`): Promise<Wire> {
  client = connect('https://example.org/live?a=1', { getToken })
  client.on('error', (error) => errors.push(error))
  await network.pass(0)
  network.wire().connect()
  return network.wire()
}

/** The connection breaks, and the client comes back. */
async function reconnect(code = 1006): Promise<Wire> {
  network.wire().end(code)
  await network.pass(20_000)
  network.wire().connect()
  return network.wire()
}

const codes = (): string[] => errors.map(({ code }) => code)
const ignore = (): undefined => undefined

/** The promise that nobody waits for is none to complain of. */
function publish(text: string): Promise<void> {
  const published = client.publish('chat', text)
  published.catch(ignore)
  return published
}

/** What became of a promise by now. Nothing ends a test that waits while timers stand still. */
async function outcome(promise: Promise<void>): Promise<unknown> {
  let became: unknown = 'waiting'
  promise.then(
    () => {
      became = 'settled'
    },
    (error) => {
      became = error
    },
  )
  await network.pass(0)
  return became
}

beforeEach(() => {
  network = fakeNetwork()
  errors = []
  tokens = 0
})
afterEach(() => {
  client.close()
  network[Symbol.dispose]()
})

test('the module is at most 4 kB, minified and gzipped', async () => {
  await open()
  const path = new URL('../../client-example/postgres-websockets.js', import.meta.url).pathname
  const { outputs } = await Bun.build({ entrypoints: [path], minify: true })
  const minified = await outputs[0]?.text()
  expect(minified).toContain('pgws.json')
  expect(gzipSync(minified ?? '', { level: 9 }).length).toBeLessThanOrEqual(4096)
})

describe('connecting', () => {
  test('returns at once, asks for a token at every connection, and offers it as a subprotocol', async () => {
    const wire = await open()
    expect(wire).toMatchObject({
      url: 'wss://example.org/live?a=1&subscribe=none',
      protocols: ['pgws.json', 'pgws.token.t1'],
    })
    expect((await reconnect()).protocols).toEqual(['pgws.json', 'pgws.token.t2'])
  })

  test('is tried again with full jitter, from 0.5 s up to 20 s', async () => {
    await open()
    const random = Math.random
    try {
      // Of each wait the longest, and then of each the shortest.
      for (const [chance, waits] of [
        [0.999, [1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]],
        [0, [500, 500, 500]],
      ] as const) {
        Math.random = () => chance
        for (const wait of waits) {
          const count = network.wires.length
          network.wire().end(1006)
          expect(client.state).toBe('waiting')
          await network.pass(wait - 100)
          expect(network.wires.length).toBe(count)
          await network.pass(100)
          expect({ wait, made: network.wires.length - count }).toEqual({ wait, made: 1 })
        }
      }
    } finally {
      Math.random = random
    }
  })

  test('waits shortly again after a connection that held', async () => {
    await open()
    for (let time = 0; time < 8; time++) await reconnect()
    await network.pass(15_000)
    network.wire().end(1006)
    const count = network.wires.length
    await network.pass(1000)
    expect(network.wires.length).toBe(count + 1)
  })

  test('is tried at once when the browser says that it is online', async () => {
    const wire = await open()
    wire.end(1006)
    dispatchEvent(new Event('online'))
    await network.pass(0)
    expect(network.wires.length).toBe(2)
  })

  test('goes on when no token is to be had, or the server says nothing', async () => {
    let isAway = true
    client = connect('ws://example.org/', { getToken: () => (isAway ? Promise.reject(new Error('no login')) : 'token') })
    client.on('error', (error) => errors.push(error))
    await network.pass(20_000)
    expect(errors[0]).toMatchObject({ code: 'NOT_CONNECTED', message: 'Not connected: no login' })
    isAway = false
    await network.pass(20_000)
    const silent = network.wire()
    await network.pass(20_000)
    expect(silent.isClosed).toBe(true)
    while (client.state === 'waiting') await network.pass(100)
    network.wire().connect()
    expect(client.state).toBe('open')
  })

  test('ends with close(), which rejects what waits', async () => {
    const wire = await open()
    const states: string[] = []
    client.on('state', (state) => states.push(state))
    const { ready } = client.subscribe('chat', {}, ignore)
    const published = publish('x')
    client.close()
    client.close()
    for (const waiting of [ready, published, publish('y'), client.subscribe('b', {}, ignore).ready])
      expect(await outcome(waiting)).toMatchObject({ code: 'CLOSED' })
    expect({ states, isClosed: wire.isClosed }).toEqual({ states: ['closed'], isClosed: true })
    await network.pass(100_000)
    expect(network.wires.length).toBe(1)
  })
})

describe('a connection', () => {
  const ping = { id: expect.any(Number), command: 'ping' }

  test('is pinged after 15 s, and given up after 10 s of silence', async () => {
    const wire = await open()
    await network.pass(15_000)
    expect(wire.commands).toEqual([ping])
    await network.pass(9999)
    expect(client.state).toBe('open')
    await network.pass(1)
    expect({ state: client.state, isClosed: wire.isClosed }).toEqual({ state: 'waiting', isClosed: true })
  })

  test('is kept where something comes, or its bytes go out', async () => {
    const wire = await open()
    await network.pass(15_000)
    wire.say({ event: 'Pong' })
    await network.pass(10_000)
    wire.bufferedAmount = 100
    await network.pass(15_000)
    wire.bufferedAmount = 50
    await network.pass(10_000)
    expect({ state: client.state, pings: wire.commands.length }).toEqual({ state: 'open', pings: 2 })
  })

  test('is pinged at once when the browser says that it is online', async () => {
    const wire = await open()
    dispatchEvent(new Event('online'))
    expect(wire.commands).toEqual([ping])
    await network.pass(10_000)
    expect(client.state).toBe('waiting')
  })
})

describe('a token', () => {
  test('is renewed when the server says that it ends', async () => {
    const wire = await open()
    wire.say({ event: 'TokenExpiring', expires: 1 })
    await network.pass(0)
    expect(wire.commands).toEqual([{ id: 'token', command: 'token', token: 't2' }])
    wire.answer({ event: 'TokenAccepted' })
    for (let time = 0; time < 3; time++) {
      wire.say({ event: 'Pong' })
      await network.pass(10_000)
    }
    expect(tokens).toBe(2)
  })

  test('that is refused or not to be had is told, and another one asked for', async () => {
    const answers = ['t1', 't2', new Error('no login'), 't4']
    const wire = await open(async () => {
      const answer = answers[tokens++]
      if (typeof answer !== 'string') throw answer
      return answer
    })
    const isPing = ({ command }: Record<string, unknown>): boolean => command === 'ping'
    wire.say({ event: 'TokenExpiring', expires: 1 })
    await network.pass(0)
    wire.answer({ event: 'Refused', code: 'TOKEN_EXPIRED', reason: 'Token expired' })
    for (let time = 0; time < 4; time++) {
      wire.say({ event: 'Pong' })
      await network.pass(10_000)
    }
    expect(codes()).toEqual(['TOKEN_EXPIRED', 'NO_TOKEN'])
    expect(wire.commands.filter((command) => !isPing(command))).toEqual([{ id: 'token', command: 'token', token: 't4' }])
  })
})

describe('a subscription', () => {
  const subscribed = { event: 'Subscribed', position: null }

  test('hands on messages, with their JSON parsed when it is read', async () => {
    const wire = await open()
    const got: unknown[] = []
    const { ready } = client.subscribe('chat', { last: 5 }, (message) => got.push({ ...message }))
    expect(wire.commands).toEqual([{ id: 1, command: 'subscribe', channel: 'chat', last: 5 }])
    wire.say({ event: 'Message', channel: 'chat', text: 'of an earlier subscription' })
    wire.answer(subscribed)
    expect(await outcome(ready)).toBe('settled')
    wire.say({ event: 'Message', channel: 'chat', text: '{"a":1}', position: 'e-1' })
    wire.say({ event: 'Message', channel: 'chat', text: 'no JSON' })
    wire.say({ event: 'Message', channel: 'other', text: 'not asked for' })
    expect(got).toEqual([
      { channel: 'chat', text: '{"a":1}', json: { a: 1 }, position: 'e-1' },
      { channel: 'chat', text: 'no JSON', json: undefined, position: undefined },
    ])
  })

  test('resumes at its last position, that of its beginning where no message came', async () => {
    const wire = await open()
    client.subscribe('a', { last: 5 }, ignore)
    client.subscribe('b', { since: 'e-3', last: 5 }, ignore)
    expect(wire.commands[1]).toEqual({ id: 2, command: 'subscribe', channel: 'b', since: 'e-3' })
    wire.answer({ event: 'Subscribed', position: 'e-7' })
    wire.answer({ event: 'Subscribed', position: 'e-3' })
    wire.say({ event: 'Message', channel: 'b', text: 'x', position: 'e-9' })
    expect((await reconnect()).commands).toMatchObject([
      { channel: 'a', since: 'e-7' },
      { channel: 'b', since: 'e-9' },
    ])
  })

  test('that is not of the journal says what it may have missed', async () => {
    const wire = await open()
    const missed: Missed[] = []
    client.on('missed', (each) => missed.push(each))
    for (const channel of ['journaled', 'notified', 'both', 'without']) {
      client.subscribe(channel, {}, ignore)
      wire.answer({ event: 'Subscribed', position: channel === 'without' ? null : 'e-1' })
    }
    for (const channel of ['journaled', 'both']) wire.say({ event: 'Message', channel, text: 'x', position: 'e-2' })
    for (const channel of ['notified', 'both', 'without']) wire.say({ event: 'Message', channel, text: 'x' })
    wire.say({ event: 'Message', channel: 'both', text: 'x', position: 'e-3' })
    const again = await reconnect()
    for (const position of ['e-2', 'e-1', 'e-3', null]) again.answer({ event: 'Subscribed', position })
    expect(missed.map(({ channel }) => channel)).toEqual(['notified', 'both', 'without'])
    again.say({ event: 'MessagesMissed', channel: 'journaled', from: null, to: 7 })
    expect(missed.at(-1)).toEqual({ channel: 'journaled', from: null, to: 7 })
  })

  test('says what it may have missed since the latest ping that was answered, and a second more', async () => {
    const now = spyOn(Date, 'now').mockReturnValue(1_000_000)
    try {
      const wire = await open()
      const missed: Missed[] = []
      client.on('missed', (each) => missed.push(each))
      client.subscribe('chat', {}, ignore)
      wire.answer(subscribed)
      now.mockReturnValue(1_015_000)
      await network.pass(15_000)
      now.mockReturnValue(1_016_000)
      wire.answer({ event: 'Pong' })
      // What comes later proves nothing: it may be old.
      now.mockReturnValue(1_020_000)
      wire.say({ event: 'Message', channel: 'chat', text: 'x' })
      const again = await reconnect()
      now.mockReturnValue(1_030_000)
      again.answer(subscribed)
      await reconnect()
      network.wire().answer(subscribed)
      expect(missed).toEqual([
        { channel: 'chat', from: 1014, to: 1030 },
        { channel: 'chat', from: 1019, to: 1030 },
      ])
    } finally {
      now.mockRestore()
    }
  })

  test('that is refused for good rejects, is told as an error, and is not asked for again', async () => {
    const wire = await open()
    const { ready } = client.subscribe('secret', {}, ignore)
    wire.answer({ event: 'Refused', code: 'CHANNEL_NOT_ALLOWED', reason: 'No allowed channels', channel: undefined })
    expect(await outcome(ready)).toMatchObject({ code: 'CHANNEL_NOT_ALLOWED', channel: 'secret', message: 'No allowed channels' })
    expect(codes()).toEqual(['CHANNEL_NOT_ALLOWED'])
    expect((await reconnect()).commands).toEqual([])
  })

  test('that is refused for now is asked for again', async () => {
    const wire = await open()
    const { ready } = client.subscribe('chat', {}, ignore)
    wire.answer({ event: 'Refused', code: 'HISTORY_UNAVAILABLE', reason: '' })
    await network.pass(2000)
    expect(wire.commands).toMatchObject([{ id: 1, command: 'subscribe' }])
    wire.answer(subscribed)
    expect(await outcome(ready)).toBe('settled')
  })

  test('that the server ends is told as an error', async () => {
    const wire = await open()
    client.subscribe('chat', {}, ignore)
    wire.answer(subscribed)
    wire.say({ event: 'Unsubscribed', channel: 'chat', code: 'ACCESS_WITHDRAWN' })
    expect(codes()).toEqual(['ACCESS_WITHDRAWN'])
    expect((await reconnect()).commands).toEqual([])
  })

  test('can be followed by another one to its channel, which gets nothing of the first', async () => {
    const wire = await open()
    const got: string[] = []
    const first = client.subscribe('chat', {}, ({ text }) => got.push(`first ${text}`))
    expect(() => client.subscribe('chat', {}, ignore)).toThrow('There is a subscription to chat already')
    wire.answer(subscribed)
    first.unsubscribe()
    first.unsubscribe()
    client.subscribe('chat', {}, ({ text }) => got.push(`second ${text}`))
    wire.say({ event: 'Message', channel: 'chat', text: 'a' })
    wire.answer({ event: 'Unsubscribed' })
    wire.answer(subscribed)
    wire.say({ event: 'Message', channel: 'chat', text: 'b' })
    expect({ got, left: wire.commands }).toEqual({ got: ['second b'], left: [] })
  })
})

describe('a publish', () => {
  test('settles with its answer, and without one is sent again under its key, in order', async () => {
    const wire = await open()
    const settled: string[] = []
    for (const text of ['1', '2', '3']) void publish(text).then(() => settled.push(text), ignore)
    expect(wire.commands[0]).toEqual({ id: 1, command: 'publish', channel: 'chat', text: '1', key: expect.any(String) })
    const [, ...sent] = wire.commands
    wire.answer({ event: 'Published' })
    await network.pass(0)
    expect(settled).toEqual(['1'])
    const again = await reconnect()
    void publish('4')
    expect(again.commands.slice(0, 2)).toEqual(sent)
    expect(again.commands.map(({ text }) => text)).toEqual(['2', '3', '4'])
  })

  test('has a key that no other client has', async () => {
    const wire = await open()
    void publish('x')
    const other = connect('ws://example.org/', { getToken: () => 't' })
    await network.pass(0)
    network.wire().connect()
    void other.publish('chat', 'x').catch(ignore)
    expect(network.wire().commands[0]?.key).not.toBe(wire.commands[0]?.key)
    other.close()
  })

  test('waits for a connection', async () => {
    client = connect('ws://example.org/', { getToken: () => 't' })
    const published = publish('early')
    await network.pass(0)
    network.wire().connect()
    network.wire().answer({ event: 'Published' })
    expect(await outcome(published)).toBe('settled')
  })

  test('that is refused for good rejects, and one that is refused for now is sent again', async () => {
    const wire = await open()
    const large = publish('large')
    wire.answer({ event: 'Refused', code: 'TOO_LARGE', reason: 'Too large' })
    expect(await outcome(large)).toMatchObject({ code: 'TOO_LARGE', channel: 'chat' })
    const later = publish('x')
    const [command] = wire.commands
    wire.answer({ event: 'Refused', code: 'BUFFER_FULL', reason: '' })
    await network.pass(499)
    expect(wire.commands).toEqual([])
    await network.pass(1501)
    expect(wire.commands[0]).toEqual(command as never)
    wire.answer({ event: 'Published' })
    expect(await outcome(later)).toBe('settled')
    expect(codes()).toEqual([])
  })

  test('is refused at once where 10,000 wait, or 16 million characters', async () => {
    client = connect('ws://example.org/', { getToken: () => 't' })
    const full = { code: 'BUFFER_FULL' }
    void publish('x'.repeat(16_777_216))
    expect(await outcome(client.publish('chat', 'x'))).toMatchObject(full)
    client.close()
    client = connect('ws://example.org/', { getToken: () => 't' })
    for (let count = 0; count < 10_000; count++) void publish('x')
    expect(await outcome(client.publish('chat', 'x'))).toMatchObject(full)
    await network.pass(0)
    const wire = network.wire()
    wire.connect()
    expect(wire.commands.length).toBe(10_000)
    wire.answer({ event: 'Published' })
    await network.pass(0)
    void publish('x')
    expect(wire.commands.length).toBe(10_000)
  })

  test('that ends the connection for its size is the largest, and rejects', async () => {
    const wire = await open()
    void publish('small')
    const large = publish('x'.repeat(300_000))
    void publish('middle size')
    wire.end(1009, 'Received too big message')
    expect(await outcome(large)).toMatchObject({ code: 'TOO_LARGE' })
    await network.pass(20_000)
    network.wire().connect()
    expect(network.wire().commands.map(({ text }) => text)).toEqual(['small', 'middle size'])
  })

  test('goes out more slowly after the server called it too fast', async () => {
    await open()
    for (const text of ['1', '2', '3']) void publish(text)
    const wire = await reconnect(1008)
    expect(wire.commands.length).toBe(1)
    await network.pass(50)
    expect(wire.commands.length).toBe(2)
    const slower = await reconnect(1008)
    await network.pass(99)
    expect(slower.commands.length).toBe(1)
  })

  test('waits while the socket has much to send', async () => {
    const wire = await open()
    wire.bufferedAmount = 300_000
    void publish('1')
    await network.pass(1000)
    expect(wire.commands).toEqual([])
    wire.bufferedAmount = 0
    await network.pass(20)
    expect(wire.commands.length).toBe(1)
  })

  test('whose first sending is too long ago for its key rejects: what became of it is not known', async () => {
    await open()
    const old = publish('old')
    network.wire().end(1006)
    const young = publish('never sent')
    const real = Date.now
    Date.now = () => real() + 3_600_000
    try {
      await network.pass(20_000)
      network.wire().connect()
      expect(await outcome(old)).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
      expect(network.wire().commands).toMatchObject([{ text: 'never sent' }])
      network.wire().answer({ event: 'Published' })
      expect(await outcome(young)).toBe('settled')
    } finally {
      Date.now = real
    }
  })
})
