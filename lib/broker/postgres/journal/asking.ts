/** Owns statements with a limit: what a silent network swallowed is never answered. */
import { type Connection, DatabaseError, type Row } from '../../../database/connection.ts'

/**
 * Asks, and ends the session where it does not answer within so many milliseconds.
 *
 * @throws DatabaseError, also where there is no session.
 */
export async function askWithin(
  limit: number,
  session: Connection | undefined,
  statement: string,
  parameters: readonly string[] = [],
): Promise<readonly Row[]> {
  if (!session) throw new DatabaseError('there is no session', 'CONNECTION_CLOSED', false)
  const late = new DatabaseError(`the journal was not answered within ${limit} ms`, 'JOURNAL_TIMEOUT', false)
  const timer = setTimeout(() => session.close(late), limit)
  try {
    return await session.query(statement, parameters)
  } finally {
    clearTimeout(timer)
  }
}
