/** Owns the journal as a part of the broker: what is new goes to the receiver, and what was goes to readers who resume. */

import type { History } from '../../../channels/broker.ts'
import type { Metrics } from '../../../metrics.ts'
import type { Delivery } from '../delivery.ts'
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

  const figure = (name: string, help: string, read: () => number, type?: 'counter'): void =>
    metrics.gauge(`pgws_journal_${name}`, help, read, undefined, type)
  figure('reading', 'Whether the journal is read.', () => Number(journal.isReading))
  figure('position', 'The number of the newest message that was read from the journal.', () => history.head)
  figure('oldest_kept', 'The number of the oldest message that the journal keeps.', () => history.kept)
  figure('looks_total', 'Looks of this server for messages without a position.', () => journal.figures.looks, 'counter')
  figure('batches_total', 'Looks that gave messages their positions.', () => journal.figures.batches, 'counter')
  figure('cached_messages', 'Messages of the journal in memory.', () => journal.figures.cachedMessages)
  figure('cached_bytes', 'What the messages of the journal take of its memory, in bytes.', () => journal.figures.cachedBytes)
  metrics.gauge(
    'pgws_journal_pages_total',
    'Pages of history that readers were given, by where they came from.',
    () => ({ memory: journal.figures.pagesFromMemory, tables: journal.figures.pagesFromTables }),
    'from',
    'counter',
  )
  metrics.gauge(
    'pgws_journal_sequencer',
    'Whether this server gives positions, by what it does.',
    () => ({ [journal.figures.sequencer]: 1 }),
    'state',
  )

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
    },
    rang: journal.rang,
    stop: journal.stop,
  }
}
