/** Owns how many messages a client may send within a second. */

/** What each session keeps for this. */
export interface Rate {
  /** When the second that is counted began, in milliseconds of the monotonic clock. */
  second: number
  /** Frames in it. */
  inSecond: number
}

/**
 * @param limit frames in a second; `Infinity` for any number.
 * @param monotonic milliseconds of the monotonic clock.
 * @returns a function that counts a frame and returns whether it is above the limit.
 */
export function createRateLimit(limit: number, monotonic: () => number): (client: Rate) => boolean {
  if (limit === Number.POSITIVE_INFINITY) return () => false
  return (client) => {
    const now = monotonic()
    if (now - client.second >= 1000) {
      client.second = now
      client.inSecond = 0
    }
    return ++client.inSecond > limit
  }
}

/**
 * The same for messages of those who are not connected, by their token. What is kept of tokens is forgotten each second.
 *
 * @returns counts a message of a token, and says whether it is above the limit.
 */
export function createTokenRate(limit: number, monotonic: () => number): (token: string) => boolean {
  if (limit === Number.POSITIVE_INFINITY) return () => false
  const inSecond = new Map<string, number>()
  let second = 0
  return (token) => {
    const now = monotonic()
    if (now - second >= 1000) {
      second = now
      inSecond.clear()
    }
    const count = (inSecond.get(token) ?? 0) + 1
    inSecond.set(token, count)
    return count > limit
  }
}
