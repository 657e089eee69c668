/** Owns statements with a limit: what a silent network swallowed is never answered. */
import { type Connection, type Database, DatabaseError, type Row } from './connection.ts'

/** As `answeredWithin`, with one statement. @throws DatabaseError, also where there is no session. */
export async function askWithin(
  limit: number,
  session: Connection | undefined,
  statement: string,
  parameters: readonly string[] = [],
  isBusy?: () => Promise<boolean>,
): Promise<readonly Row[]> {
  if (!session) throw new DatabaseError('there is no session', 'CONNECTION_CLOSED', false)
  return answeredWithin(limit, session, () => session.query(statement, parameters), isBusy)
}

/**
 * Asks, and ends the session where it does not answer within so many milliseconds.
 *
 * @param isBusy asked then: whether the database is still at work on it, which gives it as much time again.
 * @throws DatabaseError
 */
export async function answeredWithin<T>(
  limit: number,
  session: Pick<Connection, 'close'>,
  ask: () => Promise<T>,
  isBusy?: () => Promise<boolean>,
): Promise<T> {
  const late = new DatabaseError(`there was no answer within ${limit} ms`, 'ANSWER_TIMEOUT', false)
  let isAnswered = false
  const expired = async (): Promise<void> => {
    const goesOn = await isBusy?.().catch(() => false)
    if (isAnswered) return
    if (goesOn) timer = setTimeout(() => void expired(), limit)
    else session.close(late)
  }
  let timer = setTimeout(() => void expired(), limit)
  try {
    return await ask()
  } finally {
    isAnswered = true
    clearTimeout(timer)
  }
}

const AT_WORK = `select exists (
  select from pg_stat_activity where pid = $1::text::int and backend_start = $2::text::timestamptz and state = 'active'
) as busy`

/** Asks over another session whether the database is at work for this one. */
export async function isAtWork(database: Pick<Database, 'connect'>, { server }: Connection): Promise<boolean> {
  const other = await database.connect()
  try {
    const [row] = await other.query(AT_WORK, [server.backend.pid, server.backend.startedAt])
    return row?.busy === true
  } finally {
    other.close()
  }
}
