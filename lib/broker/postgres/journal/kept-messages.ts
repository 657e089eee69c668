/** Owns the journal as a part of the broker: what is new goes to the receiver, and what was goes to readers who resume. */

import type { History } from '../../../channels/broker.ts'
import type { Metrics } from '../../../metrics.ts'
import type { Delivery } from '../delivery.ts'
import { createFigures } from './figures.ts'
import { BELLS, createJournal, type JournalOptions } from './journal.ts'

export interface KeptMessages {
  readonly history: History
  /** The database channels to LISTEN on. */
  readonly bells: readonly string[]
  readonly isReading: boolean
  /** @throws JournalFault where the journal cannot be used as it is configured. */
  start(): Promise<void>
  /** A notification on one of the bells. */
  rang(channel: string, notification: string): void
  stop(): void
}

export interface KeptMessagesOptions extends Omit<JournalOptions, 'receive' | 'lost'> {
  readonly delivery: Delivery
  readonly metrics: Metrics
}

export function createKeptMessages({ delivery, metrics, ...options }: KeptMessagesOptions): KeptMessages {
  let hasStarted = false
  const journal = createJournal({
    ...options,
    receive(entries) {
      for (const { number, channel, text } of entries) delivery.kept(channel, text, journal.history.position(number))
    },
    lost: () => delivery.historyLost(),
  })
  const { history } = journal
  const figures = createFigures(metrics, journal)

  return {
    history,
    bells: BELLS,
    get isReading() {
      return journal.isReading
    },
    async start() {
      if (hasStarted) return
      await journal.start()
      hasStarted = true
      figures.start()
    },
    rang: journal.rang,
    stop() {
      figures.stop()
      journal.stop()
    },
  }
}
