/** Owns how a request says where in history a reader begins: `since`, `last`, or what an event stream read last. */

import { MOST_LAST } from '../channels/beginning.ts'
import type { Asked } from '../channels/broker.ts'
import { type Refusal, refuse } from '../refusal.ts'

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
  return number >= 1 && number <= MOST_LAST ? { last: number } : refuse('HISTORY_MALFORMED')
}
