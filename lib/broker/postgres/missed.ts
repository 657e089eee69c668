/** Owns the times between which notifications may have been missed. Pure; the clock is a parameter. */

export interface Span {
  /** Milliseconds of UNIX time. */
  readonly from: number
  readonly to: number
}

/** One moment by both clocks, in milliseconds. */
export interface Mark {
  readonly wall: number
  readonly monotonic: number
}

export interface Clock {
  /** UNIX time in milliseconds. Somebody may set this clock. */
  wall(): number
  /** Milliseconds of the monotonic clock. */
  monotonic(): number
}

export interface Missed {
  /** A notification arrived. */
  arrived(): void
  /** When one last arrived: in milliseconds of UNIX time for readers, and of the monotonic clock for intervals. */
  readonly lastArrival: number
  readonly heardAt: number
  /** Now, for a check that sets out. */
  mark(): Mark
  /** A check came back that set out then. */
  proven(setOut: Mark): void
  /** The session ended. @returns where what was missed begins: when the last check that came back set out. */
  lost(): Mark
  /** A moment in milliseconds of UNIX time: by the present wall clock, where that was set back since. */
  timeOf(mark: Mark): number
  /** What readers are still to be told, once: from the last check that came back to what has just arrived. */
  take(): Span | undefined
}

export function createMissed({ wall, monotonic }: Clock): Missed {
  let lastArrival = 0
  let heardAt = 0
  /** All that was committed ahead of it has arrived; what was committed later may still have been on its way when the session ended. */
  let provenAt: Mark = { wall: 0, monotonic: 0 }
  let since: Mark | undefined

  function timeOf(mark: Mark): number {
    return Math.min(mark.wall, wall() - (monotonic() - mark.monotonic))
  }

  return {
    arrived() {
      lastArrival = wall()
      heardAt = monotonic()
    },
    get lastArrival() {
      return lastArrival
    },
    get heardAt() {
      return heardAt
    },
    mark: () => ({ wall: wall(), monotonic: monotonic() }),
    proven(setOut) {
      provenAt = setOut
    },
    lost() {
      since ??= provenAt
      return provenAt
    },
    timeOf,
    take() {
      if (since === undefined) return undefined
      const span = { from: timeOf(since), to: lastArrival }
      since = undefined
      return span
    },
  }
}
