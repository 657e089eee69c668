/** Owns the tests' tokens. */
import { exportJWK, generateKeyPair, type JWTHeaderParameters, type JWTPayload, SignJWT } from 'jose'

export const secret = 'tests-only-tests-only-tests-only-tests-only'

/** A token as an issuer makes it, signed with the tests' secret unless another key is given. */
export function token(
  claims: JWTPayload & Record<string, unknown>,
  key: Parameters<SignJWT['sign']>[0] = bytes(secret),
  header: Partial<JWTHeaderParameters> = {},
): Promise<string> {
  return new SignJWT(claims).setProtectedHeader({ alg: 'HS256', ...header }).sign(key)
}

/** A pair of keys as an identity provider has them: the public one as a JWK, with more members where they are given. */
export async function keyPair(alg: string, more: { readonly alg?: string; readonly kid?: string } = {}) {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
  const sign = (claims: JWTPayload & Record<string, unknown>) => token(claims, privateKey, { ...more, alg })
  return { privateKey, sign, jwk: { ...(await exportJWK(publicKey)), ...more } }
}

/** A token whose claims are a text of one's own. */
export function tokenOfText(claims: string): string {
  const head = Buffer.from('{"alg":"HS256"}').toString('base64url')
  const body = Buffer.from(claims).toString('base64url')
  const signature = new Bun.CryptoHasher('sha256', secret).update(`${head}.${body}`).digest('base64url')
  return `${head}.${body}.${signature}`
}

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

/** UNIX time in seconds. */
export const now = (): number => Math.floor(Date.now() / 1000)
