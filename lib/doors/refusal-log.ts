/** Owns the log's lines about refusals. Anybody can cause them, so only some get a line in each second, and the others are counted. */
import type { Fields, Log } from '../log.ts'

/** What was asked for. */
export type Door = 'upgrade' | 'stream' | 'message'

/** Refusals within a second that get a line of their own. */
const ONE_BY_ONE = 10

const SECOND = 1000

/** @returns a function that writes a refusal's line or counts it. */
export function createRefusalLog(log: Log): (door: Door, fields: () => Fields) => void {
  let logged = 0
  let counted = 0

  function endSecond(): void {
    if (counted > 0) log.info('further requests refused', { count: counted })
    logged = counted = 0
  }

  return (door, fields) => {
    if (logged === 0) setTimeout(endSecond, SECOND)
    if (logged >= ONE_BY_ONE) counted++
    else {
      logged++
      log.info(`${door} refused`, fields())
    }
  }
}
