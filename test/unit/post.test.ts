import { describe, expect, test } from 'bun:test'
import type { Grant } from '../../lib/access/grant.ts'
import type { Outcome } from '../../lib/channels/broker.ts'
import type { Envelope } from '../../lib/channels/envelope.ts'
import { createPost, type Post, type PostFault } from '../../lib/channels/post.ts'
import { createTokenRate } from '../../lib/channels/rate.ts'
import type { Admission } from '../../lib/doors/admission.ts'
import { createPosts } from '../../lib/doors/posts.ts'
import { createMetrics } from '../../lib/metrics.ts'
import { NOTIFICATION_BYTES } from '../../lib/refusal.ts'
import { bytes } from '../support/token.ts'

const grant: Grant = {
  channels: ['a', 'b', 'c'],
  mode: 'w',
  canRead: false,
  canWrite: true,
  named: undefined,
  role: undefined,
  claims: '{"mode":"w"}',
  expiresAt: Number.POSITIVE_INFINITY,
}

/** A post, whose messages wait to be settled. */
function posting(hasRoom = true) {
  const sent: Envelope[] = []
  const outcomes: (PostFault | 'committed')[] = []
  let settle: (outcome: Outcome) => void = () => undefined
  const post = createPost({
    broker: {
      publish(messages, settled) {
        sent.push(...messages)
        settle = settled
        return hasRoom
      },
    },
    limitOf: (channel) => (channel === 'kept' ? 20_000 : NOTIFICATION_BYTES),
    forwardClaims: undefined,
    metrics: createMetrics(),
  })
  const send = (message: Uint8Array | undefined, channels = grant.channels) =>
    post({ ...grant, channels }, message, 'key', (fault) => outcomes.push(fault ?? 'committed'))
  return { send, sent, outcomes, settle: (outcome: Outcome) => settle(outcome) }
}

const refused: Outcome = { code: '22P05', reason: 'no such character' }

describe('a message that is posted', () => {
  test('goes to each of its channels under its key, with one answer once all have it', () => {
    const { send, sent, outcomes, settle } = posting()
    send(bytes('x'))
    expect(sent.map(({ channel, key }) => ({ channel, key }))).toEqual(
      ['a', 'b', 'c'].map((channel) => ({ channel, key: 'key' })),
    )
    settle('committed')
    settle('committed')
    expect(outcomes).toEqual([])
    settle('committed')
    expect(outcomes).toEqual(['committed'])
  })
  test('that the database refuses on one of its channels is refused', () => {
    const { send, outcomes, settle } = posting()
    send(bytes('x'))
    for (const outcome of ['committed', refused, 'committed'] as const) settle(outcome)
    expect(outcomes).toEqual(['REFUSED_BY_DATABASE'])
  })
  test.each([
    ['NOT_TEXT', bytes('a\0'), ['a']],
    ['NOT_TEXT', new Uint8Array([0xc3]), ['a']],
    ['TOO_LARGE', bytes('x'.repeat(8000)), ['a']],
    ['TOO_LARGE', bytes('x'.repeat(8000)), ['kept', 'a']],
    ['TOO_LARGE_TO_KEEP', bytes('x'.repeat(20_000)), ['kept']],
    ['TOO_LARGE', undefined, ['kept', 'a']],
    ['TOO_LARGE_TO_KEEP', undefined, ['kept']],
  ] as const)('is refused as %s before it is sent: %#', (fault, message, channels) => {
    const { send, sent, outcomes } = posting()
    send(message, [...channels])
    expect({ outcomes, sent }).toEqual({ outcomes: [fault], sent: [] })
  })
  test('for which there is no room is refused once', () => {
    const { send, outcomes } = posting(false)
    send(bytes('x'))
    expect(outcomes).toEqual(['BUFFER_FULL'])
  })
})

/** What a request gets whose message is posted like that. */
async function answer(post: Post): Promise<string> {
  const admission: Admission = {
    read: (request) => ({ request, address: '', asked: 'a', token: 't', door: 'message' }),
    closed: () => undefined,
    admit: () => grant,
    decided: (allowed) => allowed,
    connect: () => ({ refused: 'INTERNAL' }),
    reject: (_, code) => new Response(code),
  }
  const posts = createPosts({
    admission,
    post,
    maxMessagesPerSecond: Number.POSITIVE_INFINITY,
    messageBytes: 1000,
    product: 'server/1',
    patience: 20,
  })
  const exchange = { upgrade: () => false, address: () => '', hold: () => undefined, stream: () => new Response() }
  const answered = await posts(new Request('http://localhost/a', { method: 'POST', body: 'x' }), exchange)
  return `${answered.status} ${await answered.text()}`
}

describe('a POST', () => {
  test('without an answer in time is told that its outcome is unknown, and a later one changes nothing', async () => {
    let settle: () => void = () => undefined
    const answered = await answer((_grant, _message, _key, settled) => {
      settle = () => settled(undefined)
    })
    expect(answered).toBe('200 OUTCOME_UNKNOWN')
    settle()
  })
  test('of which the buffer for the database has no room is refused', async () => {
    expect(await answer((_grant, _message, _key, settled) => settled('BUFFER_FULL'))).toBe('200 BUFFER_FULL')
  })
})

test('messages are counted by token within a second, and what is kept of tokens is forgotten behind it', () => {
  let now = 5000
  const isAbove = createTokenRate(2, () => now)
  expect([isAbove('a'), isAbove('a'), isAbove('a'), isAbove('b')]).toEqual([false, false, true, false])
  now += 999
  expect(isAbove('a')).toBe(true)
  now += 1
  expect([isAbove('a'), isAbove('a'), isAbove('a')]).toEqual([false, false, true])
})
