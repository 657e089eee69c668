import { expect, test } from 'bun:test'
import type { Grant } from '../../lib/access/grant.ts'
import type { History } from '../../lib/channels/broker.ts'
import type { SessionsOptions } from '../../lib/channels/session.ts'
import { type Refusal, refuse } from '../../lib/refusal.ts'
import { createAlone, openFake, protocols } from '../support/sessions.ts'

/** A client that sends commands, with what it was told, and what the hub was asked for. Channels that begin with "d" wait for the test. */
function open(given: Partial<Grant> = {}, more: Partial<SessionsOptions> = {}) {
  const asked: string[] = []
  const answers = new Map<string, (refusal?: Refusal) => void>()
  const sessions = createAlone({
    hub: {
      join(channel) {
        asked.push(`+${channel}`)
        return channel.startsWith('d') ? new Promise((resolve) => answers.set(channel, resolve)) : undefined
      },
      leave: (channel) => asked.push(`-${channel}`),
      readAlone: () => undefined,
      readTogether: () => undefined,
      deliver: () => undefined,
    },
    maxSubscriptions: 3,
    ...more,
  })
  const client = openFake(sessions, { channels: [], ...given }, protocols.json)
  const told = (): string[] =>
    client.texts.splice(0).map((text) => {
      const { id, event, channel, code } = JSON.parse(text)
      return [id, code ?? event, channel].filter((part) => part !== undefined).join(' ')
    })
  told()
  return {
    ...client,
    told,
    asked: () => asked.splice(0),
    say: (...commands: object[]) => {
      for (const command of commands) sessions.message(client.session, JSON.stringify(command))
    },
    answer: async (channel: string, refusal?: Refusal) => {
      answers.get(channel)?.(refusal)
      await Bun.sleep(0)
    },
    close: () => sessions.closed(client.session, 1000, ''),
  }
}

const subscribe = (id: unknown, channel: string) => ({ id, command: 'subscribe', channel })
const unsubscribe = (id: unknown, channel: string) => ({ id, command: 'unsubscribe', channel })

test('a subscription that waits for the database is answered when it stands, and read from then on', async () => {
  const { say, told, joined, answer, asked, close } = open()
  say(subscribe(1, 'd'), { id: 2, command: 'ping' })
  expect([told(), joined]).toEqual([['2 Pong'], []])
  await answer('d')
  expect([told(), joined]).toEqual([['1 Subscribed d'], ['d']])
  close()
  expect(asked()).toEqual(['+d', '-d'])
})

test('one that the database refuses is refused, and its place is free again', async () => {
  const { say, told, joined, answer, asked } = open()
  say(subscribe(1, 'd'))
  await answer('d', refuse('TOO_MANY_CHANNELS'))
  expect([told(), joined, asked()]).toEqual([['1 TOO_MANY_CHANNELS'], [], ['+d', '-d']])
  say(subscribe(2, 'a'), subscribe(3, 'b'), subscribe(4, 'c'), subscribe(5, 'e'))
  expect(told()).toEqual(['2 Subscribed a', '3 Subscribed b', '4 Subscribed c', '5 TOO_MANY_SUBSCRIPTIONS'])
})

test('subscriptions that wait count against the limit', () => {
  const { say, told } = open()
  say(subscribe(1, 'd1'), subscribe(2, 'd2'), subscribe(3, 'd3'), subscribe(4, 'a'))
  expect(told()).toEqual(['4 TOO_MANY_SUBSCRIPTIONS'])
})

test('one that is left before it stands is refused, and nothing comes of it', async () => {
  const { say, told, joined, answer, asked } = open()
  say(subscribe(1, 'd'), unsubscribe(2, 'd'))
  expect(told()).toEqual(['1 NOT_SUBSCRIBED', '2 Unsubscribed d'])
  await answer('d')
  expect([told(), joined, asked()]).toEqual([[], [], ['+d', '-d']])
})

test('the same channel twice while it waits is two answers and one subscription', async () => {
  const { say, told, joined, answer, asked, close } = open()
  say(subscribe(1, 'd'))
  const first = answer
  say(subscribe(2, 'd'))
  await first('d')
  expect([told(), joined]).toEqual([['2 Subscribed d'], ['d']])
  close()
  expect(asked()).toEqual(['+d', '+d', '-d', '-d'])
})

test('a client that is gone leaves what it waited for, once', async () => {
  const { say, answer, asked, close, texts } = open({ channels: ['a'] })
  say(subscribe(1, 'd'))
  close()
  texts.length = 0
  await answer('d')
  expect([asked().sort(), texts]).toEqual([['+a', '+d', '-a', '-d'], []])
})

const renewed: Grant = {
  channels: [],
  mode: 'rw',
  named: ['a', 'd2'],
  role: undefined,
  canRead: true,
  canWrite: true,
  claims: '{}',
  expiresAt: Number.POSITIVE_INFINITY,
}

test('a new token ends what it does not allow, also what waits, behind its answer', async () => {
  const { say, told, joined, answer, asked } = open({ channels: ['a', 'b'] }, { authorize: () => renewed, maxSubscriptions: 9 })
  say(subscribe(1, 'd1'), subscribe(2, 'd2'), { id: 3, command: 'token', token: 't' })
  expect(told()).toEqual(['3 TokenAccepted', 'CHANNEL_NOT_ALLOWED b', '1 CHANNEL_NOT_ALLOWED'])
  await answer('d1')
  await answer('d2')
  expect([told(), joined, asked()]).toEqual([['2 Subscribed d2'], ['a', 'd2'], ['+a', '+b', '+d1', '+d2', '-b', '-d1']])
})

test('while one token is verified another is refused, and other commands go on under the old one', async () => {
  let settle = (_: Grant | Refusal): void => undefined
  const authorize = () =>
    new Promise<Grant | Refusal>((resolve) => {
      settle = resolve
    })
  const { say, told } = open({ named: ['x'] }, { authorize })
  const token = (id: number) => ({ id, command: 'token', token: 't' })
  say(token(1), token(2), subscribe(3, 'a'))
  expect(told()).toEqual(['2 TOKEN_UNDER_WAY', '3 CHANNEL_NOT_ALLOWED'])
  settle(renewed)
  await Bun.sleep(0)
  say(subscribe(4, 'a'), token(5))
  expect(told()).toEqual(['1 TokenAccepted', '4 Subscribed a'])
  settle(refuse('TOKEN_EXPIRED'))
  await Bun.sleep(0)
  expect(told()).toEqual(['5 TOKEN_EXPIRED'])
})

test('a token that is verified after its client has gone changes nothing', async () => {
  let settle = (_: Grant): void => undefined
  const { say, texts, close, session } = open({}, { authorize: () => new Promise((resolve) => (settle = resolve)) })
  say({ id: 1, command: 'token', token: 't' })
  close()
  settle(renewed)
  await Bun.sleep(0)
  expect([texts, session.grant === renewed]).toEqual([[], false])
})

test('a client that is found to read too slowly while it is told leaves each channel once', () => {
  // Its own answers are too much for it.
  const channels = Array.from({ length: 50 }, (_, index) => `channel ${index}`)
  const { say, codes, asked } = open({ channels }, { authorize: () => renewed, sendBufferBytes: 2500, maxSubscriptions: 99 })
  say({ id: 1, command: 'token', token: 't' })
  expect(codes).toEqual([1006])
  expect(asked().sort()).toEqual([...channels.map((name) => `+${name}`), ...channels.map((name) => `-${name}`)].sort())
})

/** History of which position 1-7 is number 7, and of which all before 5 is gone. */
const history: History = {
  head: 9,
  kept: 5,
  after: (_, number) => ({ entries: number < 8 ? [{ number: 8, channel: 'a', text: 'eight' }] : [], upTo: 9, isEnd: true }),
  last: () => 7,
  find: (position) => (position.startsWith('x') ? 'malformed' : Number(position.split('-')[1])),
  position: (number) => `1-${number}`,
}

test('who leaves one of the channels that it resumes goes on with the others, and gets nothing more of that one', async () => {
  let give = (): void => undefined
  const entries = ['a', 'b', 'a', 'b'].map((channel, number) => ({ number, channel, text: String(number) }))
  const slow: History = {
    ...history,
    after: (channels, number) =>
      number >= 3
        ? { entries: [], upTo: 3, isEnd: true }
        : new Promise((resolve) => {
            give = () => resolve({ entries: entries.filter(({ channel }) => channels.includes(channel)), upTo: 3, isEnd: false })
          }),
  }
  const sessions = createAlone({ broker: { publish: () => true, history: slow } })
  const client = openFake(sessions, {}, protocols.json, -1)
  sessions.message(client.session, JSON.stringify(unsubscribe(1, 'a')))
  give()
  await Bun.sleep(0)
  expect(client.texts.slice(1).map((text) => JSON.parse(text).text ?? JSON.parse(text).event)).toEqual(['Unsubscribed', '1', '3'])
  expect(client.joined).toEqual(['b'])
  sessions.closed(client.session, 1000, '')
})

test('with history a subscription begins where it is asked to, and says where that is', async () => {
  const { say, texts } = open({}, { broker: { publish: () => true, history } })
  const events = async () => {
    await Bun.sleep(0)
    return texts.splice(0).map((text) => JSON.parse(text))
  }
  texts.length = 0
  say({ command: 'subscribe', channel: 'a', since: '1-7' })
  expect(await events()).toMatchObject([
    { event: 'Subscribed', position: '1-7' },
    { event: 'Message', channel: 'a', text: 'eight', position: '1-8' },
  ])
  say({ command: 'unsubscribe', channel: 'a' }, { command: 'subscribe', channel: 'a', last: 1 })
  expect(await events()).toMatchObject([{ event: 'Unsubscribed' }, { position: '1-7' }, { text: 'eight' }])
  say({ command: 'subscribe', channel: 'b' }, { command: 'subscribe', channel: 'c', since: '1-3' })
  expect(await events()).toMatchObject([
    { event: 'Subscribed', channel: 'b', position: '1-9' },
    { event: 'Subscribed', channel: 'c', position: '1-9' },
    { event: 'MessagesMissed', channel: 'c', from: null },
  ])
  say({ command: 'unsubscribe', channel: 'c' }, { command: 'subscribe', channel: 'c', since: 'x-3' })
  expect(await events()).toMatchObject([{ event: 'Unsubscribed' }, { event: 'Refused', code: 'POSITION_MALFORMED' }])
})
