/** Owns a session that lasts: opened when it is needed, and replaced when it may be half open. */

import { asDatabaseError, type Backend, type Connection, type Database, DatabaseError } from './connection.ts'

export interface LastingSession {
  /** The session, made if there is none. @throws DatabaseError that says nothing about what was to be asked. */
  connected(): Promise<Connection>
  /** The process that serves it; undefined while there is none. */
  readonly backend: Backend | undefined
  /** Drops it. The next one ends its process. */
  replace(): void
  stop(): void
}

/** Both columns together name the same process, and not a later one with its number. As text, the time keeps its microseconds. */
const END_BACKEND =
  'select pg_terminate_backend(pid) from pg_stat_activity where pid = $1::int and backend_start = $2::text::timestamptz'

export function createLastingSession(database: Database): LastingSession {
  let connection: Connection | undefined
  /** Shared by all who ask meanwhile: of two sessions, one would have no owner. */
  let opening: Promise<Connection> | undefined
  let isStopped = false
  /** The process of a session that was dropped without an answer. It may still run its statement, for any length of time. */
  let abandoned: Backend | undefined

  /** A new session, which ends the process that a dropped one left behind: there are never more than two, and none keeps a lock. */
  async function open(): Promise<Connection> {
    const opened = await database.connect()
    if (!abandoned) return opened
    try {
      await opened.query(END_BACKEND, [abandoned.pid, abandoned.startedAt])
      abandoned = undefined
      return opened
    } catch (error) {
      opened.close()
      throw error
    }
  }

  async function establish(): Promise<Connection> {
    try {
      const opened = await open()
      if (isStopped) opened.close()
      connection = opened
      void opened.closed.then(() => {
        if (connection === opened) connection = undefined
      })
      return opened
    } catch (error) {
      const fault = asDatabaseError(error)
      // A refused connection says nothing about what is to be asked.
      throw new DatabaseError(fault.message, fault.code, false)
    } finally {
      opening = undefined
    }
  }

  return {
    async connected() {
      if (connection) return connection
      opening ??= establish()
      return opening
    },
    get backend() {
      return connection?.server.backend
    },
    replace() {
      abandoned = connection?.server.backend ?? abandoned
      connection?.close()
      connection = undefined
    },
    stop() {
      isStopped = true
      connection?.close()
    },
  }
}
