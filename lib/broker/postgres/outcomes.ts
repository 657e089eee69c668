/** Owns what is said of batches: to the senders of their messages, in the metrics, and in the log. */

import type { DatabaseError } from '../../database/connection.ts'
import type { Log } from '../../log.ts'
import type { Metrics } from '../../metrics.ts'
import type { Message } from './queue.ts'

export interface Outcomes {
  /** The messages of a batch are in the database. */
  taken(messages: readonly Message[]): void
  refused(message: Message, fault: DatabaseError): void
  /** Something keeps messages from the database; said once, until an answer comes. */
  delayed(fault: DatabaseError): void
  /** The database answered. */
  answered(): void
}

/** @param waiting how many messages wait for the database. */
export function createOutcomes(log: Log, metrics: Metrics, waiting: () => number): Outcomes {
  let obstacle: DatabaseError | undefined
  return {
    taken(messages) {
      const now = performance.now()
      metrics.batches.observe(messages.length)
      for (const { acceptedAt, settled } of messages) {
        metrics.toCommit.observe((now - acceptedAt) / 1000)
        settled('committed')
      }
    },
    refused(message, fault) {
      const { code, message: reason } = fault
      metrics.rejected.add('database')
      log.warning('message refused by the database', { code, reason })
      message.settled({ code, reason })
    },
    delayed(fault) {
      if (!obstacle) log.warning('cannot send to the database', { reason: fault.message, code: fault.code })
      obstacle = fault
    },
    answered() {
      if (obstacle) log.info('sending to the database again', { waiting: waiting() })
      obstacle = undefined
    },
  }
}
