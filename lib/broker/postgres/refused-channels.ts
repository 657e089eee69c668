/** Owns finding the channels that PostgreSQL does not listen to, whose names its encoding lacks say. */
import { asDatabaseError, type ListeningConnection } from '../../database/connection.ts'

/**
 * The channels that PostgreSQL refuses, found by halves. What is tried is undone.
 *
 * @throws DatabaseError that says nothing about a channel, such as a lack of memory or a shutdown.
 */
export async function refusedOf(session: ListeningConnection, names: readonly string[]): Promise<ReadonlySet<string>> {
  if (names.length === 0) return new Set()
  try {
    await session.tryListen(names)
    return new Set()
  } catch (error) {
    if (asDatabaseError(error).isPassing) throw error
  }
  if (names.length === 1) return new Set(names)
  const half = names.length >> 1
  const first = await refusedOf(session, names.slice(0, half))
  return first.union(await refusedOf(session, names.slice(half)))
}
