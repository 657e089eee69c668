import { describe, expect, test } from 'bun:test'
import { constants, createHmac, generateKeyPairSync, sign } from 'node:crypto'
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose'
import { readKeys, verifyToken } from '../../lib/access/token.ts'
import { Fault } from '../../lib/fault.ts'
import { bytes, keyPair, secret, token, tokenOfText } from '../support/token.ts'

const keys = readKeys(bytes(secret))
const json = (value: unknown): Uint8Array => bytes(JSON.stringify(value))

const outcome = (text: string, given = keys): unknown => {
  const result = verifyToken(text, given)
  return 'refused' in result ? result.refused : result.values
}

describe('a secret', () => {
  test.each([['HS256'], ['HS384'], ['HS512']])('verifies %s', async (alg) => {
    expect(outcome(await token({ mode: 'r' }, bytes(secret), { alg }))).toEqual({ mode: 'r' })
  })
  test('under 32 bytes is refused', () => {
    expect(() => readKeys(new Uint8Array(31))).toThrow(Fault)
    expect(() => readKeys(new Uint8Array(32))).not.toThrow()
    expect(() => readKeys(json({ kty: 'oct', k: 'c2hvcnQ' }))).toThrow(Fault)
  })
  test('in PEM is refused, for a public key is known to all', async () => {
    const { publicKey } = await generateKeyPair('RS256', { extractable: true })
    expect(() => readKeys(bytes(''.padEnd(0)))).toThrow(Fault)
    expect(async () => readKeys(bytes(await exportSPKI(publicKey)))).toThrow(Fault)
  })
})

describe('a JWK', () => {
  test.each([['RS256'], ['RS512'], ['PS256'], ['PS384'], ['ES256'], ['ES384'], ['ES512'], ['EdDSA'], ['Ed25519']])(
    'verifies %s',
    async (alg) => {
      const { privateKey, jwk } = await keyPair(alg)
      const given = readKeys(json(jwk))
      const signed = await token({ mode: 'r' }, privateKey, { alg })
      expect(outcome(signed, given)).toEqual({ mode: 'r' })
      expect(outcome(`${signed.slice(0, -8)}AAAAAAAA`, given)).toBe('TOKEN_NOT_VERIFIED')
    },
  )
  test('of kind oct verifies', async () => {
    expect(
      outcome(await token({ mode: 'r' }), readKeys(json({ kty: 'oct', k: Buffer.from(secret).toString('base64url') }))),
    ).toEqual({ mode: 'r' })
  })
  test('with alg verifies no other algorithm', async () => {
    const { privateKey, jwk } = await keyPair('RS256', { alg: 'RS256' })
    expect(outcome(await token({}, privateKey, { alg: 'RS256' }), readKeys(json(jwk)))).toEqual({})
    expect(outcome(await token({}, privateKey, { alg: 'RS256' }), readKeys(json({ ...jwk, alg: 'PS256' })))).toBe('KEY_UNKNOWN')
  })
  test('with its private half verifies all the same', async () => {
    const { privateKey } = await generateKeyPair('ES256', { extractable: true })
    const given = readKeys(json(await exportJWK(privateKey)))
    expect(outcome(await token({ mode: 'r' }, privateKey, { alg: 'ES256' }), given)).toEqual({ mode: 'r' })
  })
  test.each([
    [{ kty: 'RSA', n: 'AQAB', e: 'AQAB' }],
    [{ kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA' }],
    [{ kty: 'EC', crv: 'secp256k1' }],
    [{ kty: 'OKP', crv: 'X25519' }],
    [{ kty: 'foo' }],
    [{ kty: 7 }],
    [{ keys: [] }],
    [{ keys: [null, { kty: 'foo' }] }],
    [{ kty: 'oct', k: 'x'.repeat(50), use: 'enc' }],
  ])('like %j is refused', (document) => {
    expect(() => readKeys(json(document))).toThrow(Fault)
  })
  test('of fewer than 2048 bits is refused', () => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 1024 })
    expect(() => readKeys(json(publicKey.export({ format: 'jwk' })))).toThrow(/1024 bits/)
  })
})

describe('a JWK set', () => {
  test('tries the keys with the kid of the token', async () => {
    const one = await keyPair('RS256', { kid: 'one' })
    const two = await keyPair('RS256', { kid: 'two' })
    const given = readKeys(json({ keys: [one.jwk, two.jwk, { kty: 'unknown' }] }))
    expect(outcome(await token({ a: 1 }, two.privateKey, { alg: 'RS256', kid: 'two' }), given)).toEqual({ a: 1 })
    expect(outcome(await token({ a: 1 }, two.privateKey, { alg: 'RS256', kid: 'one' }), given)).toBe('TOKEN_NOT_VERIFIED')
  })
  test('tries every key that fits where none has the kid', async () => {
    const { jwk } = await keyPair('ES256', { kid: 'one' })
    const two = await keyPair('RS256', { kid: 'two' })
    const given = readKeys(json({ keys: [jwk, two.jwk] }))
    expect(outcome(await token({ a: 1 }, two.privateKey, { alg: 'RS256', kid: 'three' }), given)).toEqual({ a: 1 })
    expect(outcome(await token({ a: 1 }, two.privateKey, { alg: 'RS256' }), given)).toEqual({ a: 1 })
  })
})

describe('a forged token', () => {
  test('that is tampered with is not verified', async () => {
    const [head, , signature] = (await token({ mode: 'r' })).split('.')
    expect(outcome(`${head}.${Buffer.from('{"mode":"rw"}').toString('base64url')}.${signature}`)).toBe('TOKEN_NOT_VERIFIED')
  })
  test.each([['none'], ['None'], ['NONE'], ['']])('of algorithm %p is not verified', (alg) => {
    const head = Buffer.from(JSON.stringify({ alg })).toString('base64url')
    const body = Buffer.from('{"mode":"rw"}').toString('base64url')
    expect(outcome(`${head}.${body}.`)).not.toBeObject()
    expect(outcome(`${head}.${body}.AAAA`)).not.toBeObject()
  })
  test('signed with a public RSA key as an HMAC secret is not verified', async () => {
    const { publicKey } = await generateKeyPair('RS256', { extractable: true })
    const jwk = await exportJWK(publicKey)
    const given = readKeys(json(jwk))
    for (const known of [await exportSPKI(publicKey), JSON.stringify(jwk), String(jwk.n)]) {
      expect(outcome(await token({ mode: 'rw' }, bytes(known)), given)).toBe('KEY_UNKNOWN')
    }
  })
  test('that brings its own key is not verified', async () => {
    const { privateKey, jwk } = await keyPair('ES256')
    const signed = await new SignJWT({ mode: 'rw' })
      .setProtectedHeader({ alg: 'ES256', jwk, jku: 'http://127.0.0.1/' })
      .sign(privateKey)
    expect(outcome(signed)).toBe('KEY_UNKNOWN')
  })
  test('with a critical extension or an unencoded payload is not verified', () => {
    for (const extra of [{ crit: ['exp'], exp: 1 }, { crit: ['b64'], b64: false }, { b64: false }, { crit: [] }]) {
      const head = Buffer.from(JSON.stringify({ alg: 'HS256', ...extra })).toString('base64url')
      const body = Buffer.from('{"mode":"rw"}').toString('base64url')
      const signature = createHmac('sha256', secret).update(`${head}.${body}`).digest('base64url')
      expect(outcome(`${head}.${body}.${signature}`)).toBe('TOKEN_NOT_VERIFIED')
    }
  })
  test('whose PSS salt is of another length is not verified', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const head = Buffer.from('{"alg":"PS256"}').toString('base64url')
    const input = Buffer.from(`${head}.e30`)
    const bySalt = (saltLength: number): string =>
      sign('sha256', input, { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength }).toString('base64url')
    const given = readKeys(json(publicKey.export({ format: 'jwk' })))
    expect(outcome(`${input}.${bySalt(32)}`, given)).toEqual({})
    expect(outcome(`${input}.${bySalt(20)}`, given)).toBe('TOKEN_NOT_VERIFIED')
  })
})

test.each([
  [''],
  ['.'],
  ['..'],
  ['...'],
  ['a.b.c'],
  ['e30.e30.'],
  ['e30.e30.e30.e30'],
  ['%00.%00.%00'],
  ['x'.repeat(100_000)],
  [`${'.'.repeat(9)}`],
])('the text %.20p is no token', (text) => expect(outcome(text)).not.toBeObject())

test('claims that are no object, or no UTF-8, are malformed', () => {
  for (const text of ['[]', '"x"', '7', 'null', '{', '']) expect(outcome(tokenOfText(text))).toBe('TOKEN_MALFORMED')
})

test('claims keep their text', () => {
  const text = '{ "n": 12345678901234567890.10, "mode":"r" }'
  expect(verifyToken(tokenOfText(text), keys)).toMatchObject({ text })
})
