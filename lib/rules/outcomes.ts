/** Owns what is said of calls: to the senders of the messages, in the metrics, and in the log. */

import type { DatabaseError } from '../database/connection.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { refusals } from '../refusal.ts'
import { shown } from '../shown.ts'
import type { LaneOptions } from './lane.ts'

/** Milliseconds in which one refusal is logged, and the others are counted. */
const QUIET = 60_000

/** @param waiting how many messages wait for the function. */
export function createOutcomes(log: Log, metrics: Metrics, waiting: () => number): Pick<LaneOptions, 'answered' | 'delayed'> {
  let obstacle: DatabaseError | undefined
  let loggedAt = Number.NEGATIVE_INFINITY
  let unlogged = 0

  const answered: LaneOptions['answered'] = (messages, refused) => {
    if (obstacle) log.info('calling the function for messages again', { waiting: waiting() })
    obstacle = undefined
    metrics.batches.observe(messages.length)
    const now = performance.now()
    for (const [index, { acceptedAt, settled, frame }] of messages.entries()) {
      const refusal = refused.get(index)
      if (refusal === undefined) {
        metrics.toCommit.observe((now - acceptedAt) / 1000)
        settled('committed')
      } else {
        const { code } = refusal
        const reason = code === 'TOO_LARGE' ? refusals.TOO_LARGE.reason : refusal.reason
        metrics.rejected.add('function')
        tell(frame.channel, code, reason)
        settled({ rejected: frame.channel, code, reason })
      }
    }
  }

  /** Anybody can cause them, so only one in a while gets a line. */
  function tell(channel: string, code: string, reason: string): void {
    const now = performance.now()
    if (now - loggedAt < QUIET) return void unlogged++
    log.info('message refused by the function', {
      channel: shown(channel),
      code,
      reason: shown(reason),
      'further-before': unlogged,
    })
    loggedAt = now
    unlogged = 0
  }

  function delayed(fault: DatabaseError): void {
    if (!obstacle) log.warning('cannot call the function for messages', { reason: fault.message, code: fault.code })
    obstacle = fault
  }

  return { answered, delayed }
}
