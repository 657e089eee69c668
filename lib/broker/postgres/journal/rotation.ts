/** Owns when the tables are emptied whose time is over: some times in the time for which one is filled. */
import { type Ask, unlessOvertaken } from './looks.ts'

/** How often in the time for which a table is filled, and the milliseconds between two times, at least and at most. */
const TIMES = 20
const SHORTEST = 250
const LONGEST = 10_000

/** @param seconds for which a table is filled. @returns to be called again and again. */
export function createRotation(seconds: number): (ask: Ask) => Promise<void> {
  const every = Math.min(Math.max((seconds * 1000) / TIMES, SHORTEST), LONGEST)
  let rotatedAt = performance.now()
  return async (ask) => {
    if (performance.now() - rotatedAt < every) return
    rotatedAt = performance.now()
    await unlessOvertaken(ask('select pgws.rotate()'))
  }
}
