import { expect, test } from 'bun:test'
import type { Frame } from '../../lib/channels/envelope.ts'
import { DatabaseError } from '../../lib/database/connection.ts'
import type { Answers, Calls } from '../../lib/rules/calls.ts'
import { createLane } from '../../lib/rules/lane.ts'
import { createSenders, type Message } from '../../lib/rules/senders.ts'
import { count, quiet } from '../support/fake-database.ts'

const frame: Frame = { channel: 'chat', head: '', middle: '', end: '', bytes: 0 }
const senderOf = (role?: string) => ({ grant: { claims: '{}', role } })
const nothing = (): undefined => undefined
const textsOf = (messages: readonly { readonly text: string }[]) => messages.map(({ text }) => text).join('')

/** A lane for texts of one sender; `answer` says what becomes of a batch, by its texts. */
function createAlone(answer: (texts: string) => Answers, texts: string) {
  const senders = createSenders()
  const batches: string[] = []
  const outcomes: string[] = []
  const calls: Calls = {
    statements: (batch) => [{ text: textsOf(batch) }],
    answers: ([rows]) => answer(String(rows?.[0]?.texts)),
  }
  const lane = createLane({
    calls,
    senders,
    transactions: {
      async run([statement]) {
        batches.push(statement?.text ?? '')
        return [[{ texts: statement?.text ?? '' }]]
      },
      stop: nothing,
    },
    next: (most) => senders.take(most),
    answered: (messages, refused) => {
      for (const [index, { text }] of messages.entries()) outcomes.push(refused.has(index) ? `-${text}` : text)
    },
    delayed: nothing,
    idle: nothing,
  })
  const sender = senderOf()
  for (const text of texts) senders.add(sender, [frame], text, undefined, nothing)
  return { senders, lane, batches, outcomes }
}

const all = (texts: string): Answers => ({ done: texts.length, refused: new Map() })

test('a batch that the commit refuses comes again in halves, in its order, until one message is refused', async () => {
  const { lane, batches, outcomes, senders } = createAlone((texts) => {
    if (texts.includes('F')) throw new DatabaseError('refused at the commit', '23503', true)
    return all(texts)
  }, 'abcdeFgh')
  lane.work()
  await quiet()
  expect(batches).toEqual(['abcdeFgh', 'abcd', 'eFgh', 'eF', 'e', 'F', 'gh'])
  expect(outcomes.join('')).toBe('abcde-Fgh')
  expect([senders.length, senders.bytes, senders.ready]).toEqual([0, 0, 0])
})

test('calls of a batch that were not made come next, ahead of what their sender sent since', async () => {
  const { lane, batches, outcomes } = createAlone(() => ({ done: 1, refused: new Map() }), 'abc')
  lane.work()
  await quiet()
  expect([batches[0], ...outcomes]).toEqual(['abc', 'a', 'b', 'c'])
})

test('halves of a batch that are cut keep the order', async () => {
  let isFirst = true
  const { lane, outcomes } = createAlone((texts) => {
    if (texts.includes('F')) throw new DatabaseError('refused at the commit', '23503', true)
    const isCut = isFirst && texts.length > 1
    if (isCut) isFirst = false
    return { done: isCut ? 1 : texts.length, refused: new Map() }
  }, 'abcdeFgh')
  lane.work()
  await quiet()
  expect(outcomes.join('')).toBe('abcde-Fgh')
})

test.each(['40P01', '57014'])(
  'a message that is always in the way (%p) is refused in the end, and the others go on',
  async (code) => {
    const { lane, outcomes } = createAlone((texts) => {
      if (texts.includes('F')) throw new DatabaseError('in the way', code, true)
      return all(texts)
    }, 'aFb')
    lane.work()
    while (outcomes.length < 3) await Bun.sleep(5)
    expect(outcomes.join('')).toBe('a-Fb')
  },
)

test('no two batches hold messages of one sender, a batch is of one role, and roles take turns', () => {
  const senders = createSenders()
  const [one, two, other] = [senderOf('a'), senderOf('a'), senderOf('b')]
  const add = (sender: typeof one, texts: string) => {
    for (const text of texts) senders.add(sender, [frame], text, undefined, nothing)
  }
  add(one, '123')
  add(other, 'xy')
  add(two, '89')
  const first = senders.take(2)
  add(one, '4')
  const batches: (readonly Message[])[] = []
  for (const _ of count(4)) batches.push(senders.take(10))
  expect([first, ...batches].map(textsOf)).toEqual(['12', 'xy', '89', '', ''])
  senders.giveBack(first.slice(1))
  expect(textsOf(senders.take(10))).toBe('')
  senders.settle(first.slice(0, 1))
  expect(textsOf(senders.take(10))).toBe('234')
})
