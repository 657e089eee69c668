/** Owns how this server ends clients, one or all, and what their close frames say. */

import { type ClosureCode, closing, refusals } from '../refusal.ts'
import { within } from '../waiting.ts'
import type { Client } from './client.ts'
import type { ClientLog, Identity } from './client-log.ts'

/** What each session keeps for this. */
export interface Ending extends Identity {
  readonly client: Pick<Client, 'end' | 'drop'>
  /** Why the server closed it. */
  closure: ClosureCode | undefined
  /** What its close frame says, where that is not the usual. */
  reason: string | undefined
}

export interface Endings<E> {
  /** Closes a client after everything that is buffered for it. Does nothing where it is being closed already. */
  close(session: E, closure: ClosureCode, reason?: string): void
  /** Drops a client at once, without a close frame. Some runtimes report the close only later. */
  drop(session: E, closure: ClosureCode): void
  /** Closes every client with 1001 and resolves when all are gone, or after `patience` milliseconds. */
  closeAll(patience: number): Promise<void>
  /** A client is gone, and no longer among the open ones. */
  gone(): void
}

/** @param sessions the open ones. */
export function createEndings<E extends Ending>(sessions: Set<E>, log: ClientLog): Endings<E> {
  let allGone = (): void => undefined

  function close(session: E, closure: ClosureCode, reason?: string): void {
    if (session.closure !== undefined) return
    session.closure = closure
    session.reason = reason
    const end = closing(closure, reason)
    log.closing(session, end)
    session.client.end(closure, end)
  }

  return {
    close,
    drop(session, closure) {
      sessions.delete(session)
      log.dropping(session, refusals[closure].reason)
      session.client.drop()
    },
    closeAll(patience) {
      if (sessions.size === 0) return Promise.resolve()
      const gone = new Promise<void>((resolve) => {
        allGone = resolve
      })
      for (const session of sessions) close(session, 'SHUTDOWN')
      return within(patience, gone)
    },
    gone() {
      if (sessions.size === 0) allGone()
    },
  }
}
