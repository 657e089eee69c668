/** Owns waiting between attempts: longer each time, never in step with other servers, and cut short on demand. */

export interface Backoff {
  /** Waits before the next attempt; the first comes at once. */
  wait(): Promise<void>
  /** Ends the wait under way, if any. */
  cut(): void
  /** The next attempt is a first one again. */
  reset(): void
}

/** Milliseconds. The longest stays well below the 5 s in which a server that is back is to be found. */
const FIRST = 50
const LONGEST = 3000

export function createBackoff(): Backoff {
  let attempts = 0
  let cut = (): void => undefined
  return {
    wait() {
      const longest = attempts === 0 ? 0 : Math.min(FIRST * 2 ** (attempts - 1), LONGEST)
      attempts++
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, longest * (0.5 + Math.random() / 2))
        cut = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    },
    cut: () => cut(),
    reset() {
      attempts = 0
    },
  }
}
