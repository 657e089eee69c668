import { describe, expect, test } from 'bun:test'
import { channelOf, envelope, envelopeFrame, envelopeHead, nextStamp, notificationOf } from '../../lib/channels/envelope.ts'
import { members } from '../../lib/channels/json.ts'
import { NOTIFICATION_BYTES } from '../../lib/refusal.ts'

const wrap = (claims: string, text: string, channel = 'chat') =>
  envelope(envelopeFrame(envelopeHead(claims), 'WebsocketMessage', channel), JSON.stringify(text))

const STAMP = 1_800_000_000_000_042

describe('an envelope', () => {
  test('is what readers of the older server know', () => {
    expect(JSON.parse(notificationOf(wrap('{"mode":"rw"}', 'hi "there"\n'), STAMP))).toEqual({
      claims: { mode: 'rw', message_delivered_at: 1_800_000_000.000042 },
      event: 'WebsocketMessage',
      payload: 'hi "there"\n',
      channel: 'chat',
    })
  })
  test('keeps claims digit for digit', () => {
    const claims = '{"id":12345678901234567890,"x":1.10,"big":1e400,"deep":{"y":[10000000000000000001]}}'
    const text = notificationOf(wrap(claims, ''), STAMP)
    expect(text).toContain('"id":12345678901234567890,"x":1.10,"big":1e400,"deep":{"y":[10000000000000000001]}')
  })
  test('has the server stamp in place of a claim of that name', () => {
    const text = notificationOf(wrap('{"message_delivered_at":7,"a":1,"message_delivered_at":{"b":2}}', ''), STAMP)
    expect(text).toStartWith('{"claims":{"a":1,"message_delivered_at":1800000000.000042}')
  })
  test('has only the claims that are to be forwarded, and its stamp', () => {
    expect(envelopeHead('{"mode":"rw","sub":"ada","email":"private"}', ['sub', 'message_delivered_at'])).toBe(
      '{"claims":{"sub":"ada","message_delivered_at":',
    )
    expect(envelopeHead('{"sub":"ada"}', [])).toBe('{"claims":{"message_delivered_at":')
  })
  test('counts its bytes', () => {
    for (const [claims, text, channel] of [
      ['{}', '', 'c'],
      ['{"ä":"€"}', '💶"\\\u0001', '🦄'],
      ['{ "a" : 1 }', 'x'.repeat(7000), 'c'],
      ['{"ü":1}', '€'.repeat(2600), '🦄'],
      ['{}', 'x'.repeat(9000), 'c'],
    ] as const) {
      const wrapped = wrap(claims, text, channel)
      const bytes = Buffer.byteLength(notificationOf(wrapped, STAMP))
      expect(wrapped.bytes).toBeGreaterThanOrEqual(bytes)
      // Far from the limit an upper bound does; near it, the count is exact.
      if (wrapped.bytes >= NOTIFICATION_BYTES || bytes >= NOTIFICATION_BYTES) expect(wrapped.bytes).toBe(bytes)
    }
  })
})

describe('the time stamp', () => {
  test('is the present in microseconds', () => expect(nextStamp(0, 1_800_000_000_000.5)).toBe(1_800_000_000_000_500))
  test('strictly increases, also where the clock stands or goes back', () => {
    expect(nextStamp(STAMP, 1_800_000_000_000)).toBe(STAMP + 1)
    expect(nextStamp(STAMP, 0)).toBe(STAMP + 1)
  })
})

describe('a notification', () => {
  test.each([
    ['{"channel":"chat"}', 'chat'],
    [' \n{"a":{"channel":"no"},"channel":"chat"}', 'chat'],
    ['{"channel":"a","channel":"b"}', 'b'],
    ['{"ch\\u0061nnel":"\\u0063"}', 'c'],
    ['{"channel":""}', ''],
    ['{"channel":7}', undefined],
    ['{"channel":null}', undefined],
    ['{}', undefined],
    ['["channel"]', undefined],
    ['"channel"', undefined],
    ['hello', undefined],
    ['', undefined],
    ['{"channel":"chat"', undefined],
    ['{"a":{"channel":"chat"}', undefined],
    ['{"__proto__":{"channel":"chat"}}', undefined],
  ])('%s is for %p', (text, channel) => expect(channelOf(text)).toBe(channel))

  test('of thousands of levels is read or passed by, never a fault', () => {
    const levels = 3900
    expect([undefined, 'c']).toContain(channelOf(`{"a":${'['.repeat(levels)}${']'.repeat(levels)},"channel":"c"}`))
  })
})

test('the members of an object are those that JSON.parse finds', () => {
  const texts = [
    '{}',
    ' { "a" : 1 , "b" : [ {"c":"}"} , "]" ] , "c\\"" : "\\\\" , "" : { } } ',
    '{"a":1,"a":{"b":2}}',
    '{"__proto__":1,"constructor":null,"\\u0061":true,"x":"\\u007d\\"}"}',
  ]
  for (const text of texts) {
    const found = Object.fromEntries([...members(text)].map(([name, value]) => [name, JSON.parse(value)]))
    expect(JSON.stringify(found)).toBe(JSON.stringify(Object.fromEntries(Object.entries(JSON.parse(text)))))
  }
})

test('the members of random objects are those that JSON.parse finds', () => {
  const seed = Math.floor(Math.random() * 2 ** 31)
  let state = seed
  const random = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return (state >>> 8) % below
  }
  const strings = ['', 'a', 'channel', '"', '\\', '{}', '[]', ',:', '€', '\u0000', '💶', ' ']
  const string = (): string => strings[random(strings.length)] ?? ''
  const value = (depth: number): unknown => {
    const kind = random(depth > 4 ? 4 : 6)
    if (kind === 0) return string()
    if (kind === 1) return random(1000) / 8
    if (kind === 2) return null
    if (kind === 3) return true
    if (kind === 4) return Array.from({ length: random(4) }, () => value(depth + 1))
    return Object.fromEntries(Array.from({ length: random(5) }, () => [string(), value(depth + 1)]))
  }
  for (let round = 0; round < 2000; round++) {
    const object = Object.fromEntries(Array.from({ length: random(5) }, () => [string(), value(0)]))
    const text = JSON.stringify(object, null, random(3))
    const found = Object.fromEntries([...members(text)].map(([name, part]) => [name, JSON.parse(part)]))
    expect({ seed, found }).toEqual({ seed, found: object })
  }
})
