import { describe, expect, test } from 'bun:test'
import { allows, grant, type Policy, readPermit } from '../../lib/access/grant.ts'

const NOW = 1_800_000_000_000

const ask = (values: Record<string, unknown>, asked?: string, policy?: Policy) => {
  const permit = readPermit({ values, text: JSON.stringify(values) }, policy)
  return 'refused' in permit ? permit : grant(permit, asked, NOW)
}

const channels = (values: Record<string, unknown>, asked?: string): unknown => {
  const result = ask({ mode: 'rw', ...values }, asked)
  return 'refused' in result ? result.refused : result.channels
}

describe('the mode', () => {
  test.each([
    ['r', true, false],
    ['w', false, true],
    ['rw', true, true],
  ])('%s reads %p and writes %p', (mode, canRead, canWrite) => {
    expect(ask({ mode }, 'chat')).toMatchObject({ canRead, canWrite })
  })

  test('is required', () => expect(ask({}, 'chat')).toEqual({ refused: 'MODE_MISSING' }))

  test.each([['wr'], [''], ['R'], [null], [7], [['r']]])('%p is none', (mode) => {
    expect(ask({ mode }, 'chat')).toEqual({ refused: 'MODE_UNKNOWN' })
  })
})

describe('the channels', () => {
  test('of both claims are merged, channel first, duplicates dropped', () => {
    expect(channels({ channel: 'b', channels: ['a', 'b', 'c', 'a'] })).toEqual(['b', 'a', 'c'])
  })
  test('hold the one that is asked for', () => expect(channels({ channels: ['a', 'b'] }, 'b')).toEqual(['b']))
  test('refuse another', () => expect(channels({ channels: ['a', 'b'] }, 'c')).toBe('CHANNEL_NOT_ALLOWED'))
  test('are any where none are named', () => expect(channels({}, 'anything')).toEqual(['anything']))
  test('are none where none are named and none is asked for', () => expect(channels({})).toBe('CHANNEL_NOT_ALLOWED'))
  test.each([[[]], [['']], [['a', 1]], [['a', '\ud800']], ['a'], [{}], [null], [0]])(
    'in a list like %p allow nothing',
    (list) => {
      expect(channels({ channels: list }, 'a')).toBe('CHANNEL_NOT_ALLOWED')
      expect(channels({ channels: list })).toBe('CHANNEL_NOT_ALLOWED')
    },
  )
  test('beside a malformed list allow nothing', () =>
    expect(channels({ channel: 'a', channels: [1] }, 'a')).toBe('CHANNEL_NOT_ALLOWED'))
  test('under a malformed channel allow nothing', () => expect(channels({ channel: 7 }, '7')).toBe('CHANNEL_NOT_ALLOWED'))
  test.each([['\ud800'], ['\udbff'], ['a\udc00'], ['\udc00\ud800']])('are not one with a lone surrogate, like %j', (name) => {
    expect(channels({}, name)).toBe('CHANNEL_NOT_ALLOWED')
    expect(channels({ channel: name })).toBe('CHANNEL_NOT_ALLOWED')
    expect(channels({ channels: [name] }, name)).toBe('CHANNEL_NOT_ALLOWED')
  })
  test('are one with a pair of surrogates, and one with U+FFFD', () => {
    expect(channels({ channels: ['\ud83e\udd84', '\ufffd'] })).toEqual(['🦄', '\ufffd'])
  })
})

describe('who subscribes later', () => {
  const later = (values: Record<string, unknown>, asked?: string) => {
    const permit = readPermit({ values: { mode: 'r', ...values }, text: '' })
    return 'refused' in permit ? permit : grant(permit, asked, NOW, false)
  }
  test('is on no channel, and may come without one', () => {
    for (const values of [{}, { channels: ['a', 'b'] }]) expect(later(values)).toMatchObject({ channels: [] })
    expect(later({ channel: 'a' }, 'a')).toMatchObject({ channels: [] })
  })
  test('is refused all the same a channel that is not among those named, and a list that allows nothing', () => {
    expect(later({ channel: 'a' }, 'b')).toEqual({ refused: 'CHANNEL_NOT_ALLOWED' })
    expect(later({ channels: [] })).toEqual({ refused: 'CHANNEL_NOT_ALLOWED' })
  })
  test('may use those that are named, or any', () => {
    const may = (values: Record<string, unknown>, channel: string) => {
      const granted = later(values)
      return 'channels' in granted && allows(granted, channel)
    }
    expect([may({ channels: ['a'] }, 'a'), may({ channels: ['a'] }, 'b'), may({}, 'b')]).toEqual([true, false, true])
  })
})

describe('an asked segment', () => {
  test('is the channel that the token names as it stands', () =>
    expect(channels({ channels: ['a%20b', 'a b'] }, 'a%20b')).toEqual(['a%20b']))
  test('is decoded otherwise', () => expect(channels({ channels: ['a b'] }, 'a%20b')).toEqual(['a b']))
  test('is decoded where the token names no channel', () => expect(channels({}, '%E2%82%AC%2F1')).toEqual(['€/1']))
  test('with a malformed encoding stays literal', () => expect(channels({}, '100%')).toEqual(['100%']))
})

describe('the time', () => {
  const at = (seconds: number) => NOW / 1000 + seconds
  const refused = (values: Record<string, unknown>): unknown => {
    const result = ask({ mode: 'r', ...values }, 'chat')
    return 'refused' in result ? result.refused : undefined
  }
  test('of exp is exact', () => {
    expect(refused({ exp: at(0) })).toBe('TOKEN_EXPIRED')
    expect(refused({ exp: at(0.001) })).toBeUndefined()
  })
  test('of nbf and iat has 30 s of leeway', () => {
    for (const claim of ['nbf', 'iat']) {
      expect(refused({ [claim]: at(30) })).toBeUndefined()
      expect(refused({ [claim]: at(30.001) })).toBe('TOKEN_NOT_YET_VALID')
    }
  })
  test.each([['exp'], ['nbf'], ['iat']])('of %s is a number', (claim) =>
    expect(refused({ [claim]: '1' })).toBe('TOKEN_MALFORMED'),
  )
  test('of the end is in milliseconds', () =>
    expect(ask({ mode: 'r', exp: at(1.5) }, 'chat')).toMatchObject({ expiresAt: NOW + 1500 }))
  test('of the end is never without exp', () =>
    expect(ask({ mode: 'r' }, 'chat')).toMatchObject({ expiresAt: Number.POSITIVE_INFINITY }))
})

test('aud is not checked', () => expect(channels({ aud: 'others' }, 'chat')).toEqual(['chat']))

test('a claim that is named like what every object has must be there', () => {
  const policy = { modeClaim: 'constructor', channelsClaim: 'toString' }
  expect(ask({}, 'chat', policy)).toEqual({ refused: 'MODE_MISSING' })
  expect(ask({ constructor: 'r' }, 'chat', policy)).toMatchObject({ channels: ['chat'] })
})

describe('the role', () => {
  const policy = { modeClaim: 'mode', channelsClaim: 'channels', roleClaim: 'role' }
  test('is that of its claim', () => expect(ask({ mode: 'r', role: 'alice' }, 'chat', policy)).toMatchObject({ role: 'alice' }))
  test('is nobody where no claim is configured', () =>
    expect(ask({ mode: 'r', role: 'alice' }, 'chat')).toMatchObject({ role: undefined }))
  test.each([[undefined], [1], [['alice']], [''], ['none'], ['a\0'], ['\ud800']])('is missing where the claim is %p', (role) =>
    expect(ask({ mode: 'r', role }, 'chat', policy)).toEqual({ refused: 'ROLE_MISSING' }),
  )
})

test('what a token says of time goes before what it says of rights', () => {
  expect(ask({ exp: NOW / 1000 })).toEqual({ refused: 'TOKEN_EXPIRED' })
  expect(ask({ mode: 'x', nbf: NOW / 1000 + 60 })).toEqual({ refused: 'TOKEN_NOT_YET_VALID' })
})
