/** Owns where in history a reader begins. */

import { isRefusal, type Refusal, refuse } from '../refusal.ts'
import type { Asked, History } from './broker.ts'
import type { Protocol } from './client.ts'
import type { Beginning } from './reading.ts'

/** The most messages that `last` asks for. */
export const MOST_LAST = 1000

/** @returns where a reader of channels begins: at once where that is known, for an upgrade is answered in the tick of its request. */
export function createBeginnings(history: History | undefined) {
  return (
    asked: Asked,
    channels: readonly string[],
    protocol: Protocol,
    isCommand = false,
  ): Beginning | Refusal | Promise<Beginning | Refusal> => {
    if (asked === undefined || history === undefined || channels.length === 0) return undefined
    const found = 'since' in asked ? history.find(asked.since) : history.last(channels, asked.last)
    if (!(found instanceof Promise)) return beginningAt(found, history, protocol, isCommand)
    return found.then(
      (number) => beginningAt(number, history, protocol, isCommand),
      // The engine says why in the log.
      () => refuse('HISTORY_UNAVAILABLE'),
    )
  }
}

/** Who can be told that messages may be gone is told, and reads on live; others are not let in. A command can be refused. */
function beginningAt(
  found: number | 'malformed' | 'lost',
  { kept }: History,
  { tell }: Protocol,
  isCommand: boolean,
): Beginning | Refusal {
  if (typeof found === 'number' && found + 1 >= kept) return found
  if (tell && !(isCommand && found === 'malformed')) return 'lost'
  return refuse(found === 'malformed' ? 'POSITION_MALFORMED' : 'POSITION_LOST')
}

export const isBeginning = (value: Beginning | Refusal): value is Beginning => typeof value !== 'object' || !isRefusal(value)
