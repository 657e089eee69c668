/** Owns the metrics of the journal, and when the database is asked for those that it alone knows. */
import type { Metrics } from '../../../metrics.ts'
import type { Holdings } from './inspection.ts'
import type { Journal } from './journal.ts'

export interface Measuring {
  /** Measures at once, and then again and again. */
  start(): void
  stop(): void
}

/** Milliseconds between two measurements. */
const MEASURE_EVERY = 10_000

export function createFigures(metrics: Metrics, journal: Journal): Measuring {
  const { history } = journal
  let holdings: Holdings = { messages: 0, bytes: 0, age: 0, lag: 0 }
  let measuredAt = performance.now()
  let timer: ReturnType<typeof setTimeout> | undefined
  let isStopped = false

  async function measure(): Promise<void> {
    try {
      holdings = await journal.holdings()
      measuredAt = performance.now()
    } catch {
      // Who reads the journal says why in the log.
    }
    if (!isStopped) timer = setTimeout(() => void measure(), MEASURE_EVERY)
  }

  const sinceMeasured = (): number => (performance.now() - measuredAt) / 1000
  const gauge = (name: string, help: string, read: () => number): void => metrics.gauge(`pgws_journal_${name}`, help, read)
  const counter = (name: string, help: string, read: () => number): void =>
    metrics.gauge(`pgws_journal_${name}_total`, help, read, undefined, 'counter')
  const bySource = (name: string, help: string, read: () => Readonly<Record<'memory' | 'tables', number>>): void =>
    metrics.gauge(`pgws_journal_${name}_total`, help, read, 'from', 'counter')

  gauge('reading', 'Whether the journal is read.', () => Number(journal.isReading))
  gauge('position', 'The number of the newest message that was read from the journal.', () => history.head)
  gauge('lag_seconds', 'For how long the oldest message has been committed that this server has not read.', () =>
    journal.isReading ? holdings.lag : Math.max(holdings.lag, sinceMeasured()),
  )
  metrics.gauge(
    'pgws_journal_sequencer',
    'What this server does to give positions: it is the sequencer while it is awake or asleep.',
    () => ({ [journal.figures.sequencer]: 1 }),
    'state',
  )
  counter('looks', 'Looks of this server for messages without a position.', () => journal.figures.looks)
  counter('batches', 'Looks that gave messages their positions.', () => journal.figures.batches)
  gauge('messages', 'Messages that the journal keeps.', () => holdings.messages)
  gauge('bytes', "Bytes of the journal's tables and indexes.", () => holdings.bytes)
  gauge('oldest_kept', 'The number of the oldest message that the journal keeps.', () => history.kept)
  gauge('oldest_kept_age_seconds', 'For how long the journal has kept its oldest message.', () =>
    holdings.messages === 0 ? 0 : holdings.age + sinceMeasured(),
  )
  gauge('cached_messages', 'Messages of the journal in memory.', () => journal.figures.cachedMessages)
  gauge('cached_bytes', 'What the messages of the journal take of memory, in bytes.', () => journal.figures.cachedBytes)
  bySource(
    'resumes',
    'Readers that began behind a position or with the last messages, by where these were.',
    () => journal.figures.resumes,
  )
  bySource('pages', 'Pages of history that readers were given, by where they came from.', () => journal.figures.pages)
  counter('lost', 'Positions behind which messages are gone: of readers, and of the server itself.', () => journal.figures.lost)

  return {
    start: () => void measure(),
    stop() {
      isStopped = true
      clearTimeout(timer)
    },
  }
}
