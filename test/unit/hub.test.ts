import { expect, test } from 'bun:test'
import type { Form } from '../../lib/channels/client.ts'
import { createHub, createMatcher } from '../../lib/channels/hub.ts'
import { createMetrics } from '../../lib/metrics.ts'
import { type Refusal, refuse } from '../../lib/refusal.ts'

/** A hub that says what it asked for, in order. Channels that begin with "d" are the broker's own. */
function hub(handedOn: () => void = () => undefined) {
  const asked: string[] = []
  const answers = new Map<string, (refusal?: Refusal) => void>()
  const made = createHub({
    handedOn: (bytes, readers) => {
      asked.push(`${bytes} bytes to ${readers}`)
      handedOn()
    },
    metrics: createMetrics(),
    broker: {
      follow: (channel) => {
        if (!channel.startsWith('d')) return undefined
        asked.push(`follow ${channel}`)
        return new Promise((resolve) => answers.set(channel, resolve))
      },
      unfollow: (channel) => asked.push(`unfollow ${channel}`),
    },
  })
  const form = (name: string): Form => ({
    render: (_, text) => `${text}${name}`,
    topic: (channel) => channel,
    publish: (channel, text) => asked.push(`${channel}: ${text}`),
  })
  const text = form('')
  return {
    ...made,
    join: (channel: string, read = text) => made.join(channel, read),
    leave: (channel: string, read = text) => made.leave(channel, read),
    json: form(' as JSON'),
    asked,
    answer: (channel: string, refusal?: Refusal) => answers.get(channel)?.(refusal),
  }
}

test('a text goes to the readers of its channel, who are counted, and of a channel without readers to nobody', () => {
  const { join, deliver, asked } = hub()
  deliver('a', 'none')
  void join('a')
  void join('a')
  void join('b')
  deliver('a', 'text')
  expect(asked).toEqual(['a: text', '4 bytes to 2'])
})

test('the last reader of a form that leaves while a text is delivered takes it from no other form', () => {
  const { join, leave, deliver, json, asked } = hub(() => leave('a'))
  void join('a')
  void join('a', json)
  deliver('a', 'text')
  expect(asked).toEqual(['a: text', '4 bytes to 1', 'a: text as JSON', '12 bytes to 1'])
})

test('a text is rendered and handed on once for each form that its readers read', () => {
  const { join, leave, deliver, json, asked } = hub()
  void join('a')
  void join('a', json)
  void join('a', json)
  deliver('a', 'text')
  expect(asked.splice(0)).toEqual(['a: text', '4 bytes to 1', 'a: text as JSON', '12 bytes to 2'])
  leave('a')
  leave('a', json)
  deliver('a', 'text')
  expect(asked.splice(0)).toEqual(['a: text as JSON', '12 bytes to 1'])
  leave('a', json)
  deliver('a', 'text')
  expect(asked).toEqual(['unfollow a'])
})

test('a channel is followed once, until the last of its readers leaves', () => {
  const { join, leave, deliver, asked } = hub()
  void join('d')
  void join('d')
  leave('d')
  deliver('d', 'text')
  leave('d')
  deliver('d', 'late')
  void join('d')
  expect(asked).toEqual(['follow d', 'd: text', '4 bytes to 1', 'unfollow d', 'follow d'])
})

test('all who come before a channel is followed wait for the same, and who comes after waits for nothing', async () => {
  const { join, answer } = hub()
  const first = join('d')
  const second = join('d')
  expect(second).toBe(first)
  expect(first).toBeInstanceOf(Promise)
  answer('d')
  await first
  expect(join('d')).toBeUndefined()
  expect(join('a')).toBeUndefined()
})

test('a channel that was refused is refused to all who join before the first has left, and asked for again behind it', async () => {
  const { join, leave, answer, asked } = hub()
  const first = join('d')
  const refusal = refuse('TOO_MANY_CHANNELS')
  answer('d', refusal)
  expect(await first).toBe(refusal)
  expect(await join('d')).toBe(refusal)
  leave('d')
  leave('d')
  void join('d')
  expect(asked).toEqual(['follow d', 'unfollow d', 'follow d'])
})

test.each([
  ['orders', 'orders', true],
  ['orders', 'my_orders', false],
  ['orders', 'orders_2', false],
  ['chat_*', 'chat_', true],
  ['chat_*', 'chat_1\n2', true],
  ['chat_*', 'chat', false],
  ['*', 'anything', true],
  ['a.b', 'a.b', true],
  ['a.b', 'axb', false],
  ['*ä*', 'xäy', true],
])('a pattern %s of %s: %p', (pattern, name, isMatch) => expect(createMatcher(['none', pattern])(name)).toBe(isMatch))
