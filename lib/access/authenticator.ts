/** Owns which keys verify tokens at present: those of the configuration, and those of a key set at a URL, which is fetched regularly. */

import { messageOf } from '../fault.ts'
import type { Log } from '../log.ts'
import { isRefusal, type Refusal, refuse } from '../refusal.ts'
import { doubled } from '../waiting.ts'
import { type Permit, type Policy, readPermit } from './grant.ts'
import { type Key, verifyToken } from './token.ts'

export interface Authenticator {
  /** The result at once where the present keys decide; a promise where the key set must be fetched first. */
  verify(token: string): Permit | Refusal | Promise<Permit | Refusal>
  /** Replaces the configuration's keys, and fetches the key set again. */
  replace(keys: readonly Key[]): void
  stop(): void
}

export interface AuthenticatorOptions {
  readonly keys: readonly Key[]
  /** Reads the key set; undefined where there is none. */
  readonly read: (() => Promise<readonly Key[]>) | undefined
  /** What tokens must say; undefined asks only for the claims under their usual names. */
  readonly policy?: Policy
  /** Whether tokens with these claims are let in no more. */
  readonly isRevoked?: (claims: string) => boolean
  readonly log: Log
  /** A clock that never goes back, in milliseconds. */
  readonly now?: () => number
}

/** The most verified tokens to remember: many clients may share one, and its owner may connect with it again. */
const VERIFIED = 500

/** Milliseconds after which the key set is fetched again, so that a key that was removed from it no longer verifies. */
const FRESH = 600_000

/** Milliseconds between two fetches for unknown keys, so that forged tokens cannot flood the key server. */
const COOL_DOWN = 30_000

/** Milliseconds before a key server that failed is asked again: the first wait and the longest. */
const FIRST_RETRY = 1000
const LONGEST_RETRY = 60_000

export function createAuthenticator({
  keys,
  read,
  policy,
  isRevoked = () => false,
  log,
  now = () => performance.now(),
}: AuthenticatorOptions): Authenticator {
  /** The permits of tokens that the present keys verified. The grant judges whether each is valid now. */
  const verified = new Map<string, Permit>()
  let configured = keys
  let fetched: readonly Key[] | undefined
  let fetching: Promise<void> | undefined
  let fetchedAt = Number.NEGATIVE_INFINITY
  let failures = 0
  let timer: ReturnType<typeof setTimeout> | undefined
  let isStopped = false

  async function fetchKeys(reader: () => Promise<readonly Key[]>): Promise<void> {
    clearTimeout(timer)
    fetchedAt = now()
    try {
      fetched = await reader()
      verified.clear()
      failures = 0
      log.info('keys fetched', { keys: fetched.length })
    } catch (error) {
      failures++
      log.error('cannot fetch the keys', {
        reason: messageOf(error),
        kept: fetched?.length ?? 0,
      })
    }
    fetching = undefined
    const next = failures === 0 ? FRESH : doubled(FIRST_RETRY, failures - 1, LONGEST_RETRY)
    if (!isStopped) timer = setTimeout(() => void refresh(), next)
  }

  function refresh(): Promise<void> {
    if (read) fetching ??= fetchKeys(read)
    return fetching ?? Promise.resolve()
  }

  function check(token: string): Permit | Refusal {
    const permit = permitOf(token)
    return isRefusal(permit) || !isRevoked(permit.claims) ? permit : refuse('TOKEN_REVOKED')
  }

  function permitOf(token: string): Permit | Refusal {
    const known = verified.get(token)
    if (known) return known
    const claims = verifyToken(token, fetched ? [...configured, ...fetched] : configured)
    if (isRefusal(claims)) return claims
    const permit = readPermit(claims, policy)
    if (isRefusal(permit)) return permit
    const [oldest] = verified.keys()
    if (oldest !== undefined && verified.size >= VERIFIED) verified.delete(oldest)
    verified.set(token, permit)
    return permit
  }

  async function checkAfterRefresh(token: string): Promise<Permit | Refusal> {
    await refresh()
    const result = check(token)
    return isRefusal(result) && fetched === undefined ? refuse('KEYS_UNAVAILABLE') : result
  }

  void refresh()
  return {
    verify(token) {
      const result = check(token)
      if (!read || !isRefusal(result)) return result
      // Until the first key set is here, only the refusal of a malformed token is certain.
      if (fetched === undefined && result.refused !== 'TOKEN_MALFORMED')
        return fetching !== undefined ? checkAfterRefresh(token) : refuse('KEYS_UNAVAILABLE')
      if (result.refused !== 'KEY_UNKNOWN') return result
      return fetching !== undefined || now() - fetchedAt > COOL_DOWN ? checkAfterRefresh(token) : result
    },
    replace(replacement) {
      configured = replacement
      verified.clear()
      void refresh()
    },
    stop() {
      isStopped = true
      clearTimeout(timer)
    },
  }
}
