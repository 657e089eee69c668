/** Owns one LISTEN session: the channels that it listens to, all at once at its start and one by one from then on. */

import {
  asDatabaseError,
  type Backend,
  type Database,
  DatabaseError,
  type ListeningConnection,
} from '../../database/connection.ts'
import type { Log } from '../../log.ts'
import { type Refusal, refuse } from '../../refusal.ts'
import { shown } from '../../shown.ts'

/** What a session is asked beside its LISTENs. */
export type Query = ListeningConnection['query']

export interface Listener {
  readonly server: ListeningConnection['server']
  readonly backend: Backend
  /** Settled when the session has ended, whoever ended it. */
  readonly closed: Promise<void>
  readonly query: Query
  /** When PostgreSQL last answered anything that was asked on it, in milliseconds of the monotonic clock. */
  readonly answeredAt: number
  /**
   * Listens to all channels in one transaction, so that all stand at once: the first notification divides what may have been missed
   * from what is not.
   *
   * @returns those of `more` that PostgreSQL refuses, which are left out. @throws DatabaseError
   */
  listenToAll(first: string, more: readonly string[]): Promise<ReadonlySet<string>>
  /**
   * Listens to one channel more.
   *
   * @returns a refusal where PostgreSQL does not listen to it; undefined where it does, and where the session ended, for the next one
   *   listens to all.
   */
  listen(channel: string): Promise<Refusal | undefined>
  unlisten(channel: string): void
  close(): void
}

export interface ListenerOptions {
  readonly database: Database
  /** The channel that a listener begins with: that of the checks. */
  readonly checkChannel: string
  readonly log: Log
  readonly checked: (payload: string) => void
  /** Receives every other notification, all that came in one read within one tick. */
  readonly notified: (channel: string, notification: string) => void
}

type Answer = ReturnType<Listener['listen']>

/** Milliseconds for LISTEN on the first channel, and for each further thousand. */
const LISTEN_LIMIT = 10_000

/** Connects. @throws DatabaseError */
export async function openListener({ database, checkChannel, log, checked, notified }: ListenerOptions): Promise<Listener> {
  const session = await database.connectListening(checkChannel, checked)
  /** The channels that this session listens to, or soon does. */
  const standing = new Map<string, Answer>()
  let isOpen = true
  let answeredAt = Number.NEGATIVE_INFINITY
  const answered = <T>(value: T): T => {
    answeredAt = performance.now()
    return value
  }
  void session.closed.then(() => {
    isOpen = false
  })

  async function listenTo(channel: string, listening: () => Answer): Answer {
    try {
      answered(await session.listen([channel], notified))
      return undefined
    } catch (error) {
      const fault = asDatabaseError(error)
      if (!isOpen || !fault.answered) return undefined
      // The channel was given up meanwhile. A new reader of it waits for an answer of its own.
      if (standing.get(channel) !== listening()) return undefined
      log.error('cannot listen to a channel', { channel: shown(channel), reason: fault.message })
      standing.delete(channel)
      return refuse('CHANNEL_NOT_LISTENED')
    }
  }

  return {
    server: session.server,
    backend: session.server.backend,
    closed: session.closed,
    query: async (statement, parameters) => answered(await session.query(statement, parameters)),
    get answeredAt() {
      return answeredAt
    },
    async listenToAll(first, more) {
      const limit = LISTEN_LIMIT * (1 + more.length / 1000)
      const late = new DatabaseError(`LISTEN was not answered within ${limit} ms`, 'LISTEN_TIMEOUT', false)
      const deadline = setTimeout(() => session.close(late), limit)
      try {
        // After a long idle time, the tail of the notification queue may be far behind. Asking for the queue's usage moves it.
        await session.query('select pg_notification_queue_usage()')
        for (const channel of more) standing.set(channel, Promise.resolve(undefined))
        const refused = await listenUnlessRefused(session, first, more, notified)
        for (const channel of refused) standing.delete(channel)
        return refused
      } finally {
        clearTimeout(deadline)
      }
    },
    listen(channel) {
      const listening: Answer = standing.get(channel) ?? listenTo(channel, () => listening)
      standing.set(channel, listening)
      return listening
    },
    unlisten(channel) {
      if (!standing.delete(channel)) return
      session
        .unlisten(channel)
        .then(answered)
        .catch((error) =>
          log.debug('unlisten was not answered', { channel: shown(channel), reason: asDatabaseError(error).message }),
        )
    },
    close: session.close,
  }
}

async function listenUnlessRefused(
  session: ListeningConnection,
  first: string,
  more: readonly string[],
  notified: ListenerOptions['notified'],
): Promise<ReadonlySet<string>> {
  try {
    await session.listen([first, ...more], notified)
    return new Set()
  } catch (error) {
    if (asDatabaseError(error).isPassing) throw error
  }
  const refused = await refusedOf(session, more)
  await session.listen([first, ...more.filter((channel) => !refused.has(channel))], notified)
  return refused
}

/**
 * The channels that PostgreSQL refuses, for example because its encoding lacks a character of their names. Found by bisection; each
 * attempt is undone.
 *
 * @throws DatabaseError that says nothing about a channel, such as a lack of memory or a shutdown.
 */
async function refusedOf(session: ListeningConnection, channels: readonly string[]): Promise<ReadonlySet<string>> {
  if (channels.length === 0) return new Set()
  try {
    await session.tryListen(channels)
    return new Set()
  } catch (error) {
    if (asDatabaseError(error).isPassing) throw error
  }
  if (channels.length === 1) return new Set(channels)
  const half = channels.length >> 1
  const first = await refusedOf(session, channels.slice(0, half))
  return first.union(await refusedOf(session, channels.slice(half)))
}
