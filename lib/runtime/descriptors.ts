/**
 * Owns a reserve of file descriptors for when the process runs out of them. Bun would then try to accept without end, so its listening
 * socket is closed. Whatever else the program opens, such as a connection to the database, uses the reserve.
 */
import { closeSync, openSync } from 'node:fs'

export interface Reserve {
  stop(): void
}

export interface ReserveOptions {
  /** No descriptor is left but the reserve, which has been released. */
  readonly ranOut: () => void
  /** There is room again. Called again after a pause where it rejects. */
  readonly recovered: () => Promise<void>
}

/** The size of the reserve: for five connections to the database, those that replace them, files to read, and the admin port. */
const KEPT = 24

/** How many must be free beside the reserve before connections are accepted again. */
const ROOM = 16

/** Milliseconds between two checks, and at least from running out to the next attempt. */
const CHECK_EVERY = 200
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
  const timer = setInterval(look, CHECK_EVERY)
  return {
    stop() {
      clearInterval(timer)
      release(0)
    },
  }
}

/** What the system says when there are no more for this process, or for anyone. */
const OUT = /^(EMFILE|ENFILE)$/

/**
 * Opens descriptors until `kept` holds this number. The root folder is there in every container, however bare.
 *
 * @returns false where there are no more.
 */
function fill(kept: number[], number: number): boolean {
  try {
    while (kept.length < number) kept.push(openSync('/', 'r'))
    return true
  } catch (error) {
    return !(error instanceof Error && 'code' in error && OUT.test(String(error.code)))
  }
}
