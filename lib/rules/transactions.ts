/** Owns transactions in which functions of the database are called, over a session of their own: opened when it is needed, replaced when it is dead. */

import { answeredWithin, isAtWork } from '../database/asking.ts'
import { asDatabaseError, type Database, type Row } from '../database/connection.ts'
import { createLastingSession } from '../database/lasting-session.ts'

export interface Statement {
  readonly text: string
  readonly parameters?: readonly string[]
}

export interface Transactions {
  /**
   * Runs statements as one transaction, in one round trip, under the time limits of the server's role.
   *
   * Each statement must take what it needs from what those ahead of it set for the transaction, and fail where that is not set:
   * PostgreSQL runs those behind a `begin` that was cancelled each by itself.
   *
   * @returns the rows of each statement.
   * @throws DatabaseError, the first. Nothing stands then, unless it was not answered: whether that one committed is not known.
   */
  run(statements: readonly Statement[]): Promise<readonly (readonly Row[])[]>
  stop(): void
}

/** Milliseconds without an answer after which the database is asked whether it is still at work. A function may take its time. */
const ANSWER_LIMIT = 5000

const BEGIN: readonly Statement[] = [
  { text: 'begin' },
  // They are lifted for the session.
  { text: 'set local statement_timeout to default' },
  { text: 'set local lock_timeout to default' },
]

const COMMIT: Statement = { text: 'commit' }

export function createTransactions(database: Database): Transactions {
  const session = createLastingSession(database)
  return {
    async run(statements) {
      const connection = await session.connected()
      // Sent in one go, so that nothing else comes between them.
      const ask = () =>
        Promise.allSettled([...BEGIN, ...statements, COMMIT].map(({ text, parameters }) => connection.query(text, parameters)))
      const isBusy = () => isAtWork(database, connection)
      const settled = await answeredWithin(ANSWER_LIMIT, { close: () => session.replace() }, ask, isBusy)
      const rows = settled.map((result) => {
        if (result.status === 'rejected') throw asDatabaseError(result.reason)
        return result.value
      })
      return rows.slice(BEGIN.length, -1)
    },
    stop: session.stop,
  }
}
