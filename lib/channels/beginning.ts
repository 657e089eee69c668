/** Owns where in history a reader begins. */

import type { Grant } from '../access/grant.ts'
import { isRefusal, type Refusal, refuse } from '../refusal.ts'
import type { Asked, History } from './broker.ts'
import type { Protocol } from './client.ts'
import type { Beginning } from './reading.ts'

/** The most messages that `last` asks for. */
export const MOST_LAST = 1000

/** @returns where a reader begins: at once where that is known, for an upgrade is answered in the tick of its request. */
export function createBeginnings(history: History | undefined) {
  return (
    asked: Asked,
    { canRead, channels }: Pick<Grant, 'canRead' | 'channels'>,
    protocol: Protocol,
  ): Beginning | Refusal | Promise<Beginning | Refusal> => {
    if (asked === undefined || history === undefined || !canRead) return undefined
    const found = 'since' in asked ? history.find(asked.since) : history.last(channels, asked.last)
    if (!(found instanceof Promise)) return beginningAt(found, history, protocol)
    return found.then(
      (number) => beginningAt(number, history, protocol),
      // The engine says why in the log.
      () => refuse('HISTORY_UNAVAILABLE'),
    )
  }
}

/** Who can be told that messages are gone is told, and reads on live; others are not let in. */
function beginningAt(found: number | 'malformed' | 'lost', { kept }: History, { tell }: Protocol): Beginning | Refusal {
  if (found === 'malformed') return refuse('POSITION_MALFORMED')
  const isLost = found === 'lost' || found + 1 < kept
  if (!isLost) return found
  return tell ? 'lost' : refuse('POSITION_LOST')
}

export const isBeginning = (value: Beginning | Refusal): value is Beginning => typeof value !== 'object' || !isRefusal(value)
