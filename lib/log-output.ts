/** Owns the log's way out: lines leave in order, nobody waits for who reads them, and those that find no room are dropped and counted. */

import { codeOf } from './fault.ts'

export interface LogOutput {
  /** Takes a line, without its end. */
  write(line: string): void
  /** Lines that were dropped since the start. */
  readonly dropped: number
  /** Resolves when all lines are out, or after some milliseconds. */
  flushed(patience: number): Promise<void>
}

export interface LogOutputOptions {
  /** Writes without holding up the program. Resolves to how many bytes were taken, once there was room; rejected when none can be. */
  readonly put: (bytes: Uint8Array) => Promise<number>
  /** Lines are read again, before which some were dropped. */
  readonly told: (dropped: number) => void
}

/** Length of what may wait while a write is under way. */
const WAITING = 256 * 1024

/** Milliseconds before another attempt where whoever shares the output has made it refuse instead of wait. */
const PAUSE = 50

export function createLogOutput({ put, told }: LogOutputOptions): LogOutput {
  let waiting = ''
  let dropped = 0
  let untold = 0
  let writing: Promise<void> | undefined

  function drop(lines: number): void {
    dropped += lines
    untold += lines
  }

  /** @returns whether the lines are out. */
  async function putAll(lines: string): Promise<boolean> {
    let bytes: Uint8Array = Buffer.from(lines)
    while (bytes.length > 0) {
      try {
        bytes = bytes.subarray(await put(bytes))
      } catch (error) {
        if (codeOf(error) !== 'EAGAIN') {
          drop(Buffer.from(bytes).toString().split('\n').length - 1)
          return false
        }
        await new Promise((resolve) => setTimeout(resolve, PAUSE))
      }
    }
    return true
  }

  async function writeAll(): Promise<void> {
    while (waiting !== '') {
      const lines = waiting
      waiting = ''
      if (!(await putAll(lines)) || untold === 0) continue
      const later = waiting
      const count = untold
      // Empty for this line, which is to find room.
      waiting = ''
      untold = 0
      told(count)
      waiting += later
    }
    writing = undefined
  }

  return {
    get dropped() {
      return dropped
    },
    write(line) {
      if (waiting.length + line.length > WAITING) return drop(1)
      waiting += `${line}\n`
      writing ??= writeAll()
    },
    async flushed(patience) {
      let timer: ReturnType<typeof setTimeout> | undefined
      const limit = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, patience)
      })
      await Promise.race([writing, limit])
      clearTimeout(timer)
    },
  }
}
