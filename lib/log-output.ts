/** Owns the log's output: lines are written in order, never block the program, and are dropped and counted where there is no room. */

import { codeOf } from './fault.ts'

export interface LogOutput {
  /** Takes a line, without its newline. */
  write(line: string): void
  /** Lines that were dropped since the start. */
  readonly dropped: number
  /** Resolves when all lines are written, or after `patience` milliseconds. */
  flushed(patience: number): Promise<void>
}

export interface LogOutputOptions {
  /** Writes without blocking the program. Resolves to how many bytes were taken. Rejects when nothing can be written. */
  readonly put: (bytes: Uint8Array) => Promise<number>
  /** There is room again, after this many lines were dropped. */
  readonly reportDropped: (dropped: number) => void
}

/** The most characters that wait while a write is in progress. */
const WAITING = 256 * 1024

/** Milliseconds before another attempt after EAGAIN: a process that shares the output has made it non-blocking. */
const PAUSE = 50

export function createLogOutput({ put, reportDropped }: LogOutputOptions): LogOutput {
  let waiting = ''
  let dropped = 0
  let unreported = 0
  let writing: Promise<void> | undefined

  function drop(lines: number): void {
    dropped += lines
    unreported += lines
  }

  /** @returns whether the lines were written. */
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
      if (!(await putAll(lines)) || unreported === 0) continue
      const later = waiting
      const count = unreported
      // Emptied first, so that this line finds room.
      waiting = ''
      unreported = 0
      reportDropped(count)
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
