/** Owns waits: for a promise, up to a limit; and between attempts, longer each time and random, so that servers do not retry in step. */

export interface Backoff {
  /** Waits before the next attempt. The first one does not wait. @param time milliseconds to wait instead of the back-off's own. */
  wait(time?: number): Promise<void>
  /** Ends the current wait, if there is one. */
  cut(): void
  /** Starts over: the next attempt is a first one. */
  reset(): void
}

/** Milliseconds. A server that is back must be found within 5 s, so the longest wait is well below that. */
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

/** Goes on with a value: in this very tick where it is there, and later where it is promised. */
export const inTick = <T, R>(value: T | Promise<T>, next: (value: T) => R | Promise<R>): R | Promise<R> =>
  value instanceof Promise ? value.then(next) : next(value)

/** Waits until a promise settles, for at most `limit` milliseconds. Leaves no timer behind. */
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

export interface Pause {
  /** Waits so many milliseconds, or until the pause is ended. */
  wait(milliseconds: number): Promise<void>
  /** Ends the wait under way, if any. */
  end(): void
}

export function createPause(): Pause {
  let end = (): void => undefined
  return {
    wait: (milliseconds) =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, milliseconds)
        end = () => {
          clearTimeout(timer)
          resolve()
        }
      }),
    end: () => end(),
  }
}
