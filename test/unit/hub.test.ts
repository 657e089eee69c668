import { expect, test } from 'bun:test'
import { createHub, createMatcher } from '../../lib/channels/hub.ts'
import { type Refusal, refuse } from '../../lib/refusal.ts'

/** A hub that says what it asked for, in order. Channels that begin with "d" are the database's own. */
function hub() {
  const asked: string[] = []
  const answers = new Map<string, (refusal?: Refusal) => void>()
  const made = createHub({
    publish: (topic, text) => asked.push(`${topic}: ${text}`),
    isDirect: (channel) => channel.startsWith('d'),
    listen: (channel) => {
      asked.push(`listen ${channel}`)
      return new Promise((resolve) => answers.set(channel, resolve))
    },
    unlisten: (channel) => asked.push(`unlisten ${channel}`),
  })
  return { ...made, asked, answer: (channel: string, refusal?: Refusal) => answers.get(channel)?.(refusal) }
}

test('a text goes to the readers of its channel, who are counted, and of a channel without readers to nobody', () => {
  const { join, deliver, asked } = hub()
  expect(deliver('a', 'none')).toBe(0)
  join('a')
  join('a')
  join('b')
  expect(deliver('a', 'text')).toBe(2)
  expect(asked).toEqual(['a: text'])
})

test('a database channel is listened to once, until the last of its readers leaves', () => {
  const { join, leave, deliver, asked } = hub()
  void join('d')
  void join('d')
  leave('d')
  expect(deliver('d', 'text')).toBe(1)
  leave('d')
  expect(deliver('d', 'late')).toBe(0)
  void join('d')
  expect(asked).toEqual(['listen d', 'd: text', 'unlisten d', 'listen d'])
  join('a')
  leave('a')
  expect(asked).toHaveLength(4)
})

test('all who come before it stands wait for one LISTEN, and who comes after waits for nothing', async () => {
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
  expect(asked).toEqual(['listen d', 'unlisten d', 'listen d'])
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
