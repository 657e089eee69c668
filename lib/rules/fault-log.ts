/** Owns the log's lines about faults of functions. Every call may have one, so only some get a line in each second, and the others are counted. */
import type { Fields, Log } from '../log.ts'

/** Faults within a second that get a line of their own. */
const ONE_BY_ONE = 5

const SECOND = 1000

/** @param message what the lines say. */
export function createFaultLog(log: Log, message: string): { add(fields: Fields): void; stop(): void } {
  let logged = 0
  let counted = 0
  let timer: ReturnType<typeof setTimeout> | undefined

  function endSecond(): void {
    if (counted > 0) log.error(`${message}, and more of them`, { count: counted })
    logged = counted = 0
  }

  return {
    add(fields) {
      if (logged === 0) timer = setTimeout(endSecond, SECOND)
      if (logged >= ONE_BY_ONE) counted++
      else {
        logged++
        log.error(message, fields)
      }
    },
    stop() {
      clearTimeout(timer)
      endSecond()
    },
  }
}
