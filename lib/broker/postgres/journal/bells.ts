/** Owns the bells of publishers: when they rang, and the waits between two looks, which a bell ends. */
import { createPause } from '../../../waiting.ts'

/** The database channel on which publishers ring while nobody looks. */
export const BELL = 'pgws_published'

/** Milliseconds between looks, and between reads, for which nobody rang. */
export const UNASKED = 1000

/** Two bells within so many milliseconds wake a sequencer up. For one now and then, a look is enough. */
const BUSY = 100

export interface Bells {
  /** Whether publishers rang since the last look began, and more than now and then. */
  readonly areBusy: boolean
  /** When the last look began, by the monotonic clock. */
  readonly lookedAt: number
  /** A look begins. */
  looking(): void
  rang(): void
  /** Forgets what rang before. */
  forget(): void
  /** Waits so many milliseconds, or until a bell rings that no look has followed. */
  wait(milliseconds: number): Promise<void>
  /** Ends the wait under way, if any. */
  endWait(): void
}

/** @param isStopped whether nobody waits any more. */
export function createBells(isStopped: () => boolean): Bells {
  const pause = createPause()
  let rangAt = Number.NEGATIVE_INFINITY
  let rangBefore = Number.NEGATIVE_INFINITY
  let lookedAt = 0

  const haveRung = (): boolean => rangAt >= lookedAt

  return {
    get areBusy() {
      return haveRung() && rangAt - rangBefore < BUSY
    },
    get lookedAt() {
      return lookedAt
    },
    looking() {
      lookedAt = performance.now()
    },
    rang() {
      rangBefore = rangAt
      rangAt = performance.now()
      pause.end()
    },
    forget() {
      rangAt = Number.NEGATIVE_INFINITY
    },
    wait: (milliseconds) => (haveRung() || isStopped() ? Promise.resolve() : pause.wait(milliseconds)),
    endWait: pause.end,
  }
}
