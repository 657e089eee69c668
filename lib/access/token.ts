/**
 * Owns the way from a token to verified claims: keys, algorithms, signatures (RFC 7515, 7517, 7518, 7519).
 *
 * jose reads keys and headers. The signature is checked with node:crypto, because jose checks it asynchronously, and an upgrade must not
 * wait: Bun answers 400 when a client's first frames arrive before its upgrade is answered.
 */
import { constants, createHmac, createPublicKey, createSecretKey, type KeyObject, timingSafeEqual, verify } from 'node:crypto'
import { base64url, createRemoteJWKSet, customFetch, decodeProtectedHeader } from 'jose'
import { Fault } from '../fault.ts'
import { reasonOf } from '../reach.ts'
import { type Refusal, refuse } from '../refusal.ts'
import type { Claims } from './grant.ts'

/** A key that verifies tokens, with the algorithms that fit it. */
export interface Key {
  readonly id: string | undefined
  readonly algorithms: readonly Algorithm[]
  readonly object: KeyObject
}

interface Algorithm {
  readonly name: string
  readonly fits: (jwk: Jwk) => boolean
  readonly check: (key: KeyObject, data: Buffer, signature: Uint8Array) => boolean
}

interface Jwk {
  readonly kty: string
  readonly crv?: string
  readonly alg?: string
}

const hmac = (bits: number): Algorithm => ({
  name: `HS${bits}`,
  fits: ({ kty }) => kty === 'oct',
  check: (key, data, signature) => {
    const expected = createHmac(`sha${bits}`, key).update(data).digest()
    return expected.length === signature.length && timingSafeEqual(expected, signature)
  },
})

const rsa = (prefix: 'RS' | 'PS', bits: number): Algorithm => ({
  name: `${prefix}${bits}`,
  fits: ({ kty }) => kty === 'RSA',
  check: (key, data, signature) =>
    verify(
      `sha${bits}`,
      data,
      prefix === 'RS'
        ? { key, padding: constants.RSA_PKCS1_PADDING }
        : { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST },
      signature,
    ),
})

const ecdsa = (bits: number, curve: string): Algorithm => ({
  name: `ES${bits}`,
  fits: ({ kty, crv }) => kty === 'EC' && crv === curve,
  check: (key, data, signature) => verify(`sha${bits}`, data, { key, dsaEncoding: 'ieee-p1363' }, signature),
})

const eddsa = (name: string): Algorithm => ({
  name,
  fits: ({ kty, crv }) => kty === 'OKP' && crv === 'Ed25519',
  check: (key, data, signature) => verify(null, data, key, signature),
})

const algorithms: readonly Algorithm[] = [
  ...[256, 384, 512].flatMap((bits) => [hmac(bits), rsa('RS', bits), rsa('PS', bits)]),
  ecdsa(256, 'P-256'),
  ecdsa(384, 'P-384'),
  ecdsa(512, 'P-521'),
  eddsa('EdDSA'),
  eddsa('Ed25519'),
]

/** RFC 7518 section 3.2: a key at least as long as the hash of HS256. */
const SECRET_BYTES = 32

/** RFC 7518 section 3.3. */
const RSA_BITS = 2048

/**
 * Reads the keys out of what `PGWS_JWT_SECRET` holds: a plain secret, a JWK or a JWK set.
 *
 * @throws Fault where it is none of them, too short to be safe, or has no key that can verify.
 */
export function readKeys(secret: Uint8Array): Key[] {
  const text = new TextDecoder().decode(secret)
  if (text.includes('-----BEGIN ')) throw new Fault('is a PEM file: give an RSA, EC or OKP key as a JWK')
  const document = parseObject(text)
  if (document && Array.isArray(document.keys)) return readKeySet(document.keys)
  if (document && 'kty' in document) return [readKey(document)]
  if (secret.length < SECRET_BYTES) throw new Fault(`is ${secret.length} bytes long: a secret takes at least ${SECRET_BYTES}`)
  return [{ id: undefined, algorithms: algorithms.filter(({ fits }) => fits({ kty: 'oct' })), object: createSecretKey(secret) }]
}

/**
 * The usable keys of a JWK set. Keys of an unknown kind are skipped (RFC 7517 section 5), but at least one must be usable.
 */
function readKeySet(documents: readonly unknown[]): Key[] {
  const keys: Key[] = []
  const faults: string[] = []
  for (const document of documents) {
    try {
      keys.push(readKey(document))
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      faults.push(error.message)
    }
  }
  if (keys.length === 0) throw new Fault(`is a key set without a usable key${faults[0] ? `: its first ${faults[0]}` : ''}`)
  return keys
}

/** Milliseconds for a key server's answer. */
const KEY_SERVER_TIMEOUT = 5000

/** The most bytes of a key server's answer. A key takes about 1,000. */
const KEY_SET_BYTES = 1024 * 1024

/**
 * Reads the key set at a URL, each time it is called.
 *
 * @returns its public keys. A symmetric key that anybody can fetch would let anybody sign tokens, so it does not count.
 * @throws what the key server or the network answered.
 */
export function createKeyReader(url: URL): () => Promise<Key[]> {
  const set = createRemoteJWKSet(url, { timeoutDuration: KEY_SERVER_TIMEOUT, cooldownDuration: 0, [customFetch]: fetchBounded })
  return async () => {
    await set.reload().catch((error) => {
      throw new Error(`${url.host}: ${reasonOf(error)}`, { cause: error })
    })
    const documents = set.jwks()?.keys ?? []
    return readKeySet(documents.filter(({ kty }) => kty !== 'oct'))
  }
}

/** As `fetch`, but an endless answer does not fill the memory. */
async function fetchBounded(url: string, options: RequestInit): Promise<Response> {
  const response = await fetch(url, options)
  if (response.status !== 200) return response
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.length
    if (length > KEY_SET_BYTES) throw new Error(`the key server's answer is longer than ${KEY_SET_BYTES} bytes`)
    chunks.push(chunk)
  }
  return new Response(Buffer.concat(chunks))
}

function readKey(document: unknown): Key {
  const jwk = typeof document === 'object' && document !== null ? (document as Record<string, unknown>) : {}
  const text = (name: string): string | undefined => (typeof jwk[name] === 'string' ? jwk[name] : undefined)
  const operations = jwk.key_ops
  if (text('use') === 'enc' || (Array.isArray(operations) && !operations.includes('verify') && !operations.includes('sign')))
    throw new Fault('key is not for signatures')
  const described = { kty: text('kty') ?? '', crv: text('crv') ?? '' }
  const fitting = algorithms.filter(({ name, fits }) => fits(described) && (text('alg') ?? name) === name)
  if (fitting.length === 0)
    throw new Fault(`key has a kty, crv or alg that is not supported (kty ${JSON.stringify(described.kty)})`)
  return { id: text('kid'), algorithms: fitting, object: importKey(jwk) }
}

/** Takes only the public members, so that a private key given by mistake verifies as its public key does. */
function importKey({ kty, crv, x, y, n, e, k }: Record<string, unknown>): KeyObject {
  try {
    if (kty === 'oct') {
      const secret = base64url.decode(String(k ?? ''))
      if (secret.length < SECRET_BYTES)
        throw new Fault(`key is ${secret.length} bytes long: an oct key takes at least ${SECRET_BYTES}`)
      return createSecretKey(secret)
    }
    // Members that the kind does not have are undefined and dropped.
    const members = JSON.parse(JSON.stringify({ kty, crv, x, y, n, e }))
    const key = createPublicKey({ key: members, format: 'jwk' })
    const bits = key.asymmetricKeyDetails?.modulusLength
    if (bits !== undefined && bits < RSA_BITS) throw new Fault(`RSA key has ${bits} bits: at least ${RSA_BITS} are needed`)
    return key
  } catch (error) {
    if (error instanceof Fault) throw error
    throw new Fault('key is damaged: a member is missing or not base64url')
  }
}

/**
 * Checks a token's signature and returns its claims. The grant judges what they say about time and channels.
 *
 * Tries the keys with the token's `kid`. Where no key has it, tries every key that fits the algorithm.
 *
 * @returns the claims; KEY_UNKNOWN where a key that is not here might verify the token: none has its `kid`, or fits where it names none.
 */
export function verifyToken(token: string, keys: readonly Key[]): Claims | Refusal {
  const [header, payload, signature, ...more] = token.split('.')
  if (!header || payload === undefined || signature === undefined || more.length > 0) return refuse('TOKEN_MALFORMED')
  try {
    const { alg, kid, crit, b64 } = decodeProtectedHeader(token)
    // No extension is supported, so a token that requires one is refused (RFC 7515 section 4.1.11).
    if (crit !== undefined || b64 === false) return refuse('TOKEN_NOT_VERIFIED')
    const named = keys.filter(({ id }) => kid !== undefined && id === kid)
    const signed = Buffer.from(`${header}.${payload}`)
    const signatureBytes = base64url.decode(signature)
    let hasKey = named.length > 0
    for (const key of named.length > 0 ? named : keys) {
      const algorithm = key.algorithms.find(({ name }) => name === alg)
      if (algorithm?.check(key.object, signed, signatureBytes)) return readClaims(payload)
      hasKey ||= kid === undefined && algorithm !== undefined
    }
    return refuse(hasKey ? 'TOKEN_NOT_VERIFIED' : 'KEY_UNKNOWN')
  } catch {
    // A decoder or a key could not read it. The error is not passed on, because its message could quote the token.
    return refuse('TOKEN_MALFORMED')
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function readClaims(payload: string): Claims | Refusal {
  const text = utf8.decode(base64url.decode(payload))
  const values = parseObject(text)
  return values ? { values, text } : refuse('TOKEN_MALFORMED')
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    // An object that is not an array has string keys.
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}
