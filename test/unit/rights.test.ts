import { expect, test } from 'bun:test'
import { type Decision, type Grant, narrowed } from '../../lib/access/grant.ts'
import type { Authority } from '../../lib/channels/authority.ts'
import { isRefusal } from '../../lib/refusal.ts'
import { createAlone, fullGrant, openFake, protocols } from '../support/sessions.ts'

const base: Grant = { ...fullGrant, channels: ['a', 'b', 'c'] }

test.each([
  ['rw', ['r', 'w', 'no'], ['a', 'b']],
  ['r', ['r', 'w', 'rw'], ['a', 'c']],
  ['w', ['r', 'w', 'rw'], ['b', 'c']],
  ['r', ['w', 'w', 'no'], 'CHANNEL_NOT_ALLOWED'],
  ['rw', ['rw', 'AUTHORITY_UNAVAILABLE', 'rw'], 'AUTHORITY_UNAVAILABLE'],
  ['rw', ['rw', 'ROLE_NOT_ALLOWED', 'rw'], 'ROLE_NOT_ALLOWED'],
] as const)('a token of mode %s with the decisions %p leaves %p', (mode, decisions, left) => {
  const found = narrowed({ ...base, mode, canRead: mode !== 'w', canWrite: mode !== 'r' }, decisions)
  expect(isRefusal(found) ? found.refused : found.channels).toEqual(left as never)
})

/** An authority whose answers the test gives, and a client that sends commands. */
function open() {
  const asked: { readonly channel: string; settle(decision: Decision): void }[] = []
  const authority: Authority = {
    decide: (_, channels) =>
      Promise.all(channels.map((channel) => new Promise<Decision>((settle) => asked.push({ channel, settle })))),
  }
  const published: string[] = []
  const broker = {
    history: undefined,
    publish(messages: readonly { readonly tail: string }[], settled: (outcome: 'committed') => void) {
      for (const { tail } of messages) published.push(/"payload":"(\w*)"/.exec(tail)?.[1] ?? '')
      for (const _ of messages) settled('committed')
      return true
    },
  }
  const sessions = createAlone({ authority, broker })
  const client = openFake(sessions, { channels: [], rights: new Map() }, protocols.json)
  const say = (...commands: object[]) => {
    for (const command of commands) sessions.message(client.session, JSON.stringify(command))
  }
  const publish = (id: number, channel: string, text = `${id}`) => say({ id, command: 'publish', channel, text })
  const told = async () => {
    await Bun.sleep(0)
    return client.texts.splice(0).map((text) => `${JSON.parse(text).id} ${JSON.parse(text).code ?? JSON.parse(text).event}`)
  }
  client.texts.length = 0
  const answer = (channel: string, decision: Decision) => {
    for (const one of asked.splice(0)) one.channel === channel ? one.settle(decision) : asked.push(one)
  }
  return { sessions, client, say, publish, told, answer, published, asked }
}

test('publishes behind one whose decision is awaited wait, too, and keep their order', async () => {
  const { publish, told, answer, published } = open()
  publish(1, 'a')
  publish(2, 'b')
  publish(3, 'a')
  answer('b', 'rw')
  expect([await told(), published]).toEqual([[], []])
  answer('a', 'w')
  expect([await told(), published]).toEqual([
    ['1 Published', '2 Published', '3 Published'],
    ['1', '2', '3'],
  ])
  publish(4, 'b')
  expect([await told(), published.at(-1)]).toEqual([['4 Published'], '4'])
})

test('what is not allowed is not published, and what is behind it is', async () => {
  const { publish, told, answer, published } = open()
  for (const [index, channel] of ['a', 'b', 'c', 'd'].entries()) publish(index, channel)
  for (const [channel, decision] of [
    ['a', 'no'],
    ['b', 'r'],
    ['c', 'AUTHORITY_UNAVAILABLE'],
    ['d', 'rw'],
  ] as const)
    answer(channel, decision)
  expect(await told()).toEqual(['0 CHANNEL_NOT_ALLOWED', '1 MODE_NOT_ALLOWED', '2 AUTHORITY_UNAVAILABLE', '3 Published'])
  expect(published).toEqual(['3'])
})

test('what waits for a decision is bounded, in number and in size', async () => {
  const many = open()
  for (let id = 0; id < 1002; id++) many.publish(id, 'a')
  many.answer('a', 'rw')
  expect((await many.told()).slice(-3)).toEqual(['999 Published', '1000 BUFFER_FULL', '1001 BUFFER_FULL'])
  expect(many.published).toHaveLength(1000)
  const other = open()
  other.publish(1, 'a', 'x'.repeat(600_000))
  other.publish(2, 'a', 'x'.repeat(600_000))
  other.answer('a', 'no')
  expect(await other.told()).toEqual(['1 CHANNEL_NOT_ALLOWED', '2 BUFFER_FULL'])
})

test('a client that is gone publishes nothing more', async () => {
  const { publish, told, answer, published, sessions, client } = open()
  publish(1, 'a')
  sessions.closed(client.session, 1000, '')
  answer('a', 'rw')
  expect([await told(), published]).toEqual([[], []])
})
