/** Owns waiting: for a promise with a limit, and between attempts, longer each time and never in step with other servers. */

export interface Backoff {
  /** Waits before the next attempt; the first comes at once. @param time milliseconds to wait instead of the back-off's own. */
  wait(time?: number): Promise<void>
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
    wait(time) {
      const longest = attempts === 0 ? 0 : doubled(FIRST, attempts - 1, LONGEST)
      attempts++
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, time ?? longest * (0.5 + Math.random() / 2))
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

/** A wait that doubles with each attempt, from the first up to the longest. */
export const doubled = (first: number, doublings: number, longest: number): number => Math.min(first * 2 ** doublings, longest)

/** Waits until a promise settles, but no longer than some milliseconds. Leaves no timer behind. */
export function within(limit: number, promise: Promise<unknown>): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, limit)
    const end = (): void => {
      clearTimeout(timer)
      resolve()
    }
    promise.then(end, end)
  })
}
