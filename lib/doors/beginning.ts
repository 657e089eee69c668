/** Owns how a request says where in history a reader begins: `since`, `last`, or what an event stream read last. */

import { MOST_LAST } from '../channels/beginning.ts'
import type { Asked } from '../channels/broker.ts'
import { type Refusal, refuse } from '../refusal.ts'
import { readQuery } from './target.ts'

/**
 * Reads what is asked of history. What is empty is not there. What an event stream read last goes before its URL, with which a browser comes
 * again and again.
 *
 * @returns a refusal where both are asked for, or a number that is none from 1 to 1,000.
 */
export function readAskedOfHistory({ url, headers }: Request): Asked | Refusal {
  const lastRead = headers.get('Last-Event-ID')
  if (lastRead) return { since: lastRead }
  const query = readQuery(url)
  const since = query?.get('since') || undefined
  const last = query?.get('last') || undefined
  if (since !== undefined && last !== undefined) return refuse('HISTORY_MALFORMED')
  if (since !== undefined) return { since }
  if (last === undefined) return undefined
  const number = /^\d{1,4}$/.test(last) ? Number(last) : 0
  return number >= 1 && number <= MOST_LAST ? { last: number } : refuse('HISTORY_MALFORMED')
}
