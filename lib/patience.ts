/** Owns how long an attempt to reach the database may take: short while that may heal a fault soon, longer the longer it does not. */

export interface Patience {
  /** Milliseconds that the attempt that begins now may take. */
  limit(): number
  /** The attempt succeeded: the next one begins a series of its own. */
  rewarded(): void
}

/** Milliseconds. A database on a busy machine takes some time to start a session; one that takes longer than the longest is not there. */
const SHORTEST = 500
const LONGEST = 30_000

/** Milliseconds for an attempt where no interval is set. */
const UNHURRIED = 10_000

/**
 * What a silent network swallowed is never answered, so that only another attempt finds the way free again. A quarter of the time since
 * the series began is waited for a database that takes that long, and for all of them until one has succeeded.
 *
 * @param interval milliseconds within which a fault is to be healed, half of which goes to an attempt; 0 does not hurry.
 */
export function createPatience(interval: number): Patience {
  const shortest = interval > 0 ? Math.max(interval / 2, SHORTEST) : UNHURRIED
  let began: number | undefined = Number.NEGATIVE_INFINITY
  return {
    limit() {
      began ??= performance.now()
      return Math.ceil(Math.max(shortest, Math.min((performance.now() - began) / 4, LONGEST)))
    },
    rewarded() {
      began = undefined
    },
  }
}
