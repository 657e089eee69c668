/** Owns the order in which a server comes to its end: nothing that was accepted is lost, and every client learns why. */

import type { RunningServer } from '../runtime/contract.ts'
import { within } from '../waiting.ts'
import type { Broker } from './broker.ts'
import type { Sessions } from './session.ts'

/** Milliseconds for accepted messages to come back from the database before the clients are closed, so that readers still get them. */
const DRAIN_GRACE = 250

/** Milliseconds for clients to read what is buffered for them, to answer their close frame and to hang up. */
const CLOSE_PATIENCE = 2000

interface Draining {
  readonly running: RunningServer
  /** What takes messages. */
  readonly ways: readonly Pick<Broker, 'flush' | 'stop'>[]
  readonly sessions: Sessions
}

/**
 * Sends what was accepted, closes the clients, and sends what they sent in the meantime.
 *
 * @param timeout milliseconds for all of it. @returns how many accepted messages did not reach the database.
 */
export async function drain(timeout: number, { running, ways, sessions }: Draining): Promise<number> {
  const end = performance.now() + timeout
  const left = (): number => Math.max(0, end - performance.now())
  const flush = () => Promise.all(ways.map((way) => way.flush()))
  running.stopAccepting()
  await within(Math.min(DRAIN_GRACE, left() / 2), flush())
  await sessions.closeAll(Math.min(CLOSE_PATIENCE, left()))
  await running.hungUp(Math.min(CLOSE_PATIENCE, left()))
  await within(left(), flush())
  return ways.reduce((lost, way) => lost + way.stop(), 0)
}
