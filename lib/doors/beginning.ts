/** Owns where in history a reader begins, as a request says it: `since`, `last`, or what an event stream read last. */

import type { Grant } from '../access/grant.ts'
import type { History } from '../channels/broker.ts'
import type { Protocol } from '../channels/client.ts'
import type { Beginning } from '../channels/reading.ts'
import { isRefusal, type Refusal, refuse } from '../refusal.ts'

/** The most messages that `last` asks for. */
const MOST = 1000

/** What a request asks of history; undefined is nothing. */
export type Asked = { readonly since: string } | { readonly last: number } | undefined

/**
 * Reads what is asked of history. What is empty is not there.
 *
 * @returns a refusal where both are asked for, or a number that is none from 1 to 1,000.
 */
export function readAskedOfHistory({ url, headers }: Request): Asked | Refusal {
  const query = url.indexOf('?')
  if (query === -1 && !headers.has('Last-Event-ID')) return undefined
  const parameters = new URLSearchParams(query === -1 ? '' : url.slice(query))
  const since = parameters.get('since') || headers.get('Last-Event-ID') || undefined
  const last = parameters.get('last') || undefined
  if (since !== undefined && last !== undefined) return refuse('HISTORY_MALFORMED')
  if (since !== undefined) return { since }
  if (last === undefined) return undefined
  const number = /^\d{1,4}$/.test(last) ? Number(last) : 0
  return number >= 1 && number <= MOST ? { last: number } : refuse('HISTORY_MALFORMED')
}

/** @returns where a reader begins: at once where that is known, for an upgrade is answered in the tick of its request. */
export function createBeginnings(history: History | undefined) {
  return (asked: Asked, { canRead, channels }: Grant, protocol: Protocol): Beginning | Refusal | Promise<Beginning | Refusal> => {
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
