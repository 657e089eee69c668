import { afterEach, expect, jest, test } from 'bun:test'
import { createAuthenticator } from '../../lib/access/authenticator.ts'
import { type Key, readKeys } from '../../lib/access/token.ts'
import { createLog } from '../../lib/log.ts'
import { bytes, keyPair } from '../support/token.ts'

const log = createLog({ write: () => undefined })

afterEach(() => void jest.useRealTimers())

async function pair(kid: string) {
  const { jwk, sign } = await keyPair('ES256', { kid })
  return { keys: readKeys(bytes(JSON.stringify(jwk))), token: await sign({ kid }), another: await sign({ kid, jti: 'another' }) }
}

/** An authenticator over a set that a test changes, with a clock that a test turns. */
async function authenticator(first: readonly Key[]) {
  const state = { keys: first, reads: 0, time: 0 }
  const ring = createAuthenticator({
    keys: [],
    read: async () => {
      state.reads++
      return state.keys
    },
    log,
    now: () => state.time,
  })
  // The first answer waits for the first set.
  await ring.verify('e30.e30.e30')
  return { ring, state }
}

const outcome = async (answer: unknown): Promise<string> => {
  const result = (await answer) as { refused?: string }
  return result.refused ?? 'verified'
}

test('a known key verifies at once, without asking the key server', async () => {
  const one = await pair('one')
  const { ring, state } = await authenticator(one.keys)
  const answer = ring.verify(one.token)
  expect(answer).not.toBeInstanceOf(Promise)
  expect(await outcome(answer)).toBe('verified')
  expect(state.reads).toBe(1)
  ring.stop()
})

test('an unknown kid fetches the set again after the cool-down, once for all who wait', async () => {
  const [one, two] = [await pair('one'), await pair('two')]
  const { ring, state } = await authenticator(one.keys)
  state.keys = [...one.keys, ...two.keys]
  state.time = 29_999
  expect(await outcome(ring.verify(two.token))).toBe('KEY_UNKNOWN')
  state.time = 30_001
  expect(await Promise.all([two, two, one, two].map(({ token }) => outcome(ring.verify(token))))).toEqual(
    Array(4).fill('verified'),
  )
  expect(state.reads).toBe(2)
  ring.stop()
})

test('a key server that is down is asked again after 1 s, and after twice as long each time, up to 60 s', async () => {
  jest.useFakeTimers()
  const askedAt: number[] = []
  let seconds = 0
  const ring = createAuthenticator({
    keys: [],
    read: () => {
      askedAt.push(seconds)
      return Promise.reject(new Error('down'))
    },
    log,
  })
  for (; seconds < 200; jest.advanceTimersByTime(1000)) {
    for (let turn = 0; turn < 5; turn++) await Promise.resolve()
    seconds++
  }
  expect(askedAt).toEqual([0, 1, 3, 7, 15, 31, 63, 123, 183])
  ring.stop()
})

test('the set is fetched again every 10 minutes, and keys once fetched stay in use while the key server is down', async () => {
  const [one, two] = [await pair('one'), await pair('two')]
  jest.useFakeTimers()
  const answers = [one.keys, undefined, two.keys]
  const ring = createAuthenticator({
    keys: [],
    read: async () => answers.shift() ?? Promise.reject(new Error('down')),
    log,
  })
  expect(await outcome(ring.verify(one.token))).toBe('verified')
  jest.advanceTimersByTime(600_000)
  expect(answers).toHaveLength(1)
  for (let turn = 0; turn < 5; turn++) await Promise.resolve()
  expect(await outcome(ring.verify(one.another))).toBe('verified')
  // After a failure the next try comes sooner.
  jest.advanceTimersByTime(1000)
  for (let turn = 0; turn < 5; turn++) await Promise.resolve()
  expect(await outcome(ring.verify(two.token))).toBe('verified')
  ring.stop()
})

test('before the first set has come, no token is refused for want of its key', async () => {
  const one = await pair('one')
  const ring = createAuthenticator({ keys: [], read: () => Promise.reject(new Error('down')), log })
  expect(await outcome(ring.verify(one.token))).toBe('KEYS_UNAVAILABLE')
  expect(await outcome(ring.verify(one.token))).toBe('KEYS_UNAVAILABLE')
  ring.stop()
})

test('a bad signature under a known kid fetches nothing', async () => {
  const one = await pair('one')
  const { ring, state } = await authenticator(one.keys)
  state.time = 1e9
  expect(await outcome(ring.verify(`${one.token.slice(0, -6)}AAAAAA`))).toBe('TOKEN_NOT_VERIFIED')
  expect(state.reads).toBe(1)
  ring.stop()
})

test('a key that is taken out of the set verifies no more, not even a token that it verified', async () => {
  const [one, two] = [await pair('one'), await pair('two')]
  const { ring, state } = await authenticator([...one.keys, ...two.keys])
  expect(await outcome(ring.verify(one.token))).toBe('verified')
  state.keys = two.keys
  state.time = 30_001
  const unknown = await pair('three')
  expect(await outcome(ring.verify(unknown.token))).toBe('KEY_UNKNOWN')
  expect(await outcome(ring.verify(one.token))).toBe('KEY_UNKNOWN')
  expect(await outcome(ring.verify(two.token))).toBe('verified')
  ring.stop()
})

test('a key that the configuration replaces verifies no more, not even a token that it verified', async () => {
  const [one, two] = [await pair('one'), await pair('two')]
  const ring = createAuthenticator({ keys: one.keys, read: undefined, log })
  expect(await outcome(ring.verify(one.token))).toBe('verified')
  ring.replace(two.keys)
  expect(await outcome(ring.verify(one.token))).toBe('KEY_UNKNOWN')
  expect(await outcome(ring.verify(two.token))).toBe('verified')
  ring.stop()
})

test('a token that was verified makes no other pass', async () => {
  const one = await pair('one')
  const ring = createAuthenticator({ keys: one.keys, read: undefined, log })
  expect(await outcome(ring.verify(one.token))).toBe('verified')
  const [header, , signature] = one.token.split('.')
  const forged = `${header}.${Buffer.from('{"mode":"rw"}').toString('base64url')}.${signature}`
  expect(await outcome(ring.verify(forged))).toBe('TOKEN_NOT_VERIFIED')
  expect(await outcome(ring.verify(`${header}.e30.${signature}`))).toBe('TOKEN_NOT_VERIFIED')
  ring.stop()
})

test('more tokens than are remembered all verify, each with its own claims', async () => {
  const { jwk, sign } = await keyPair('ES256')
  let reads = 0
  const policy = {
    channelsClaim: 'channels',
    get modeClaim() {
      reads++
      return 'mode'
    },
  }
  const keys = readKeys(bytes(JSON.stringify(jwk)))
  const ring = createAuthenticator({ keys, read: undefined, policy, log })
  const tokens = await Promise.all(Array.from({ length: 600 }, (_, sub) => sign({ sub: String(sub) })))
  for (const round of [1, 2]) {
    for (const [sub, text] of tokens.entries()) {
      expect([round, await ring.verify(text)]).toMatchObject([round, { claims: JSON.stringify({ sub: String(sub) }) }])
    }
  }
  // The latest is remembered, and the first was read again: it had been forgotten.
  await ring.verify(tokens.at(-1) ?? '')
  expect(reads).toBe(1200)
  ring.stop()
})
