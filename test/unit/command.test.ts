import { describe, expect, test } from 'bun:test'
import { jsonCommands, jsonMessage } from '../../lib/doors/command.ts'
import { refusals } from '../../lib/refusal.ts'

const read = (value: unknown) => jsonCommands.read(typeof value === 'string' ? value : JSON.stringify(value))

describe('a command', () => {
  test.each([
    [{ command: 'ping' }, { command: 'ping' }],
    [
      { id: 0, command: 'ping', more: 1 },
      { id: 0, command: 'ping' },
    ],
    [
      { id: null, command: 'token', token: 't' },
      { command: 'token', token: 't' },
    ],
    [
      { id: '', command: 'unsubscribe', channel: 'ü ' },
      { id: '', command: 'unsubscribe', channel: 'ü ' },
    ],
    [
      { command: 'subscribe', channel: 'a', since: '', last: null },
      { command: 'subscribe', channel: 'a', asked: undefined },
    ],
    [
      { command: 'subscribe', channel: 'a', since: '1f.1-7' },
      { command: 'subscribe', channel: 'a', asked: { since: '1f.1-7' } },
    ],
    [
      { command: 'subscribe', channel: 'a', last: 1000 },
      { command: 'subscribe', channel: 'a', asked: { last: 1000 } },
    ],
    [
      { command: 'publish', channel: 'a', text: '' },
      { command: 'publish', channel: 'a', text: '', key: undefined },
    ],
    [
      { command: 'publish', channel: 'a', text: 'x', key: 'k' },
      { command: 'publish', channel: 'a', text: 'x', key: 'k' },
    ],
  ])('is read from %j', (sent, command) => expect(read(sent)).toEqual({ id: undefined, ...command } as ReturnType<typeof read>))

  test.each([
    ['COMMAND_MALFORMED', ''],
    ['COMMAND_MALFORMED', '7'],
    ['COMMAND_MALFORMED', '"ping"'],
    ['COMMAND_MALFORMED', '[{"command":"ping"}]'],
    ['COMMAND_MALFORMED', '{"command":"ping"}{"command":"ping"}'],
    ['COMMAND_MALFORMED', '{"__proto__":{"command":"ping"}}'],
    ['COMMAND_MALFORMED', { command: ['ping'] }],
    ['COMMAND_MALFORMED', { command: 'subscribe', channel: '' }],
    ['COMMAND_MALFORMED', { command: 'subscribe', channel: 7 }],
    ['COMMAND_MALFORMED', { command: 'subscribe', channel: 'ü'.repeat(513) }],
    ['COMMAND_MALFORMED', '{"command":"subscribe","channel":"\\ud800"}'],
    ['COMMAND_MALFORMED', { command: 'subscribe', channel: 'a', last: 1001 }],
    ['COMMAND_MALFORMED', { command: 'subscribe', channel: 'a', last: 1.5 }],
    ['COMMAND_MALFORMED', { command: 'subscribe', channel: 'a', last: '5' }],
    ['COMMAND_MALFORMED', { command: 'subscribe', channel: 'a', last: 5, since: '1f.1-7' }],
    ['POSITION_MALFORMED', { command: 'subscribe', channel: 'a', since: 7 }],
    ['POSITION_MALFORMED', { command: 'subscribe', channel: 'a', since: '1f.1-7 ' }],
    ['COMMAND_MALFORMED', { command: 'unsubscribe' }],
    ['COMMAND_MALFORMED', { command: 'publish', channel: 'a' }],
    ['COMMAND_MALFORMED', { command: 'publish', channel: 'a', text: {} }],
    ['COMMAND_MALFORMED', { command: 'publish', channel: 'a', text: 'x', key: 'k'.repeat(257) }],
    ['COMMAND_MALFORMED', { command: 'publish', channel: 'a', text: 'x', key: 'a\0' }],
    ['COMMAND_MALFORMED', '{"command":"publish","channel":"a","text":"x","key":"\\udc00"}'],
    ['COMMAND_MALFORMED', { command: 'token' }],
    ['TOKEN_MALFORMED', { command: 'token', token: 'x'.repeat(16_385) }],
    ['COMMAND_UNKNOWN', { command: 'constructor' }],
    ['COMMAND_UNKNOWN', { command: 'Ping' }],
  ])('is refused with %s where it is %j, and its id comes back', (code, sent) => {
    const expected = { event: 'Refused', code } as ReturnType<typeof read>
    expect(read(sent)).toEqual({ ...expected, id: undefined })
    if (typeof sent === 'object') expect(read({ ...sent, id: 'i' })).toEqual({ ...expected, id: 'i' })
  })

  test.each([[{}], [[1]], [true], ['x'.repeat(129)], [2 ** 53], [1e300]])('has no id like %j', (id) =>
    expect(read({ id, command: 'ping' })).toMatchObject({ code: 'COMMAND_MALFORMED', id: undefined }),
  )

  test.each([[-1.5], ['x'.repeat(128)], [2 ** 53 - 1], [1e-7]])('has an id like %j', (id) =>
    expect(read({ id, command: 'ping' })).toEqual({ id, command: 'ping' }),
  )
})

describe('an event', () => {
  test('of a refusal has the reason of its code, and no id where the command had none', () =>
    expect(jsonCommands.write({ id: undefined, event: 'Refused', code: 'NOT_TEXT' })).toBe(
      JSON.stringify({ event: 'Refused', code: 'NOT_TEXT', reason: refusals.NOT_TEXT.reason }),
    ))

  test.each([
    ['a "b"', 'text \\ \u2028 \ud83e\udd84', undefined],
    ['a', '', '1f.1-7'],
  ])('of a message to %j with the text %j and the position %p says all of them', (channel, text, position) =>
    expect(JSON.parse(jsonMessage(channel, text, position))).toEqual({
      event: 'Message',
      channel,
      text,
      ...(position === undefined ? {} : { position }),
    }),
  )
})
