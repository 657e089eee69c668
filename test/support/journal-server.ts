/** Owns a server that delivers the journal of a database of its own, for the tests of one file. */
import { afterAll, beforeAll } from 'bun:test'
import { type JournalDatabase, startJournal } from './journal.ts'
import { type Environment, type Program, start } from './program.ts'
import { until } from './until.ts'

/** What stands between the first test of a file and its last. */
export interface JournalServer {
  readonly journal: JournalDatabase
  readonly program: Program
  publish(channel: string, ...texts: readonly string[]): Promise<void>
  /** Waits until the journal has given positions to all that was published. */
  sequenced(): Promise<void>
}

/** The variables of a server that delivers this journal, and keeps what clients send on `kept-*`. */
export const journalVariables = ({ uri }: JournalDatabase): Environment => ({
  PGWS_DB_URI: uri,
  PGWS_JOURNAL: 'True',
  PGWS_JOURNAL_CHANNELS: 'kept-*',
  PGWS_CHECK_LISTENER_INTERVAL: '1000',
})

/** To be called at the top of a file: it starts ahead of the file's tests, and stops behind them. */
export function withJournalServer(more: Environment = {}): JournalServer {
  const stands: { journal?: JournalDatabase; program?: Program } = {}
  beforeAll(async () => {
    stands.journal = await startJournal()
    stands.program = await start({ ...journalVariables(stands.journal), ...more })
  })
  afterAll(async () => {
    await stands.program?.stop()
    await stands.journal?.stop()
  })
  const there = <T>(value: T | undefined): T => {
    if (value === undefined) throw new Error('the tests have not begun')
    return value
  }
  const server: JournalServer = {
    get journal() {
      return there(stands.journal)
    },
    get program() {
      return there(stands.program)
    },
    async publish(channel, ...texts) {
      for (const text of texts) await server.journal.sql`select pgws.publish(${channel}, ${text})`
    },
    sequenced: () => until(async () => (await server.journal.sql`select pgws.is_behind() as behind`)[0]?.behind === false),
  }
  return server
}
