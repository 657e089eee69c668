/**
 * Owns file descriptors kept back for the time when no other is left. Bun's accept then tries without end: its listening socket has to
 * be closed, and whatever else the program opens, such as a session with the database, takes what was kept back.
 */
import { closeSync, openSync } from 'node:fs'

export interface Reserve {
  stop(): void
}

export interface ReserveOptions {
  /** None is left but those kept back, which can be had from now on. */
  readonly ranOut: () => void
  /** There is room again. Tried again a pause later where it is rejected. */
  readonly recovered: () => Promise<void>
}

/** Kept back: for two sessions with the database, those that replace them, and what reads files or answers the admin port. */
const KEPT = 16

/** What must be free beside them before connections are accepted again. */
const ROOM = 16

/** Milliseconds between two looks, and the least from running out to the next try. */
const LOOK_EVERY = 200
const PAUSE = 1000

export function keepReserve({ ranOut, recovered }: ReserveOptions): Reserve {
  const kept: number[] = []
  let ranOutAt: number | undefined
  let isTrying = false

  const release = (down: number): void => {
    while (kept.length > down) closeSync(kept.pop() ?? -1)
  }

  const runOut = (): void => {
    ranOutAt = performance.now()
    release(0)
    ranOut()
  }

  async function recover(): Promise<void> {
    isTrying = true
    release(KEPT)
    try {
      await recovered()
      ranOutAt = undefined
    } catch {
      ranOutAt = performance.now()
    }
    isTrying = false
  }

  const look = (): void => {
    if (isTrying) return
    if (ranOutAt === undefined) {
      if (fill(kept, KEPT + 1)) release(KEPT)
      else runOut()
    } else if (performance.now() - ranOutAt >= PAUSE) {
      if (fill(kept, KEPT + ROOM)) void recover()
      else release(0)
    }
  }

  look()
  const timer = setInterval(look, LOOK_EVERY)
  return {
    stop() {
      clearInterval(timer)
      release(0)
    },
  }
}

/** Opens descriptors up to a number of them. False where there are no more. */
function fill(kept: number[], number: number): boolean {
  try {
    while (kept.length < number) kept.push(openSync('/dev/null', 'r'))
    return true
  } catch {
    return false
  }
}
