/**
 * Owns the proof that notifications come round: one that the notifier sends must arrive on the LISTEN session. It tells a dead or half-open
 * connection, a pooler that swallowed LISTEN and a replica from each other.
 */
import type { ListeningConnection } from '../../database/connection.ts'
import type { Log } from '../../log.ts'
import type { Notifier } from './notifier.ts'

export interface Proof {
  /** A database channel of its own, so that nobody who listens beside this server hears the checks. */
  readonly channel: string
  /** `pg_notification_queue_usage()` at the last run, from 0 to 1. */
  readonly queueUsage: number
  /** To be told of each notification on the channel. */
  arrived(payload: string): void
  /**
   * Sends a notification and awaits it on the session, with a query on that session beside it.
   *
   * @param deadline milliseconds.
   * @param lastArrival when a notification last arrived on the session, in milliseconds of UNIX time.
   */
  run(session: ListeningConnection, deadline: number, lastArrival: () => number): Promise<Finding>
}

export interface Finding {
  /** Whether the notification came back. */
  readonly isBack: boolean
  /** What is wrong with the session; undefined where it is well, though the notification could not be sent. */
  readonly fault: string | undefined
}

/** What every check's channel begins with, of this server and of others. */
export const CHECK_PREFIX = 'pgws-check-'

/** What a run has seen so far. */
interface Seen {
  isBack: boolean
  probe: 'waiting' | 'taken' | 'failed'
  answer: { readonly isReplica: boolean; readonly listens: boolean } | undefined
}

/** Asked on the LISTEN session itself. */
const LOOK = `select pg_is_in_recovery() as replica, pg_notification_queue_usage() as usage,
  exists (select from pg_listening_channels() as c where c = $1) as listens`

export function createProof(notifier: Notifier, log: Log): Proof {
  const channel = `${CHECK_PREFIX}${crypto.randomUUID()}`
  let runs = 0
  let queueUsage = 0
  let arrived: (payload: string) => void = () => undefined

  async function run(session: ListeningConnection, deadline: number, lastArrival: () => number): Promise<Finding> {
    const payload = String(++runs)
    const started = Date.now()
    const seen: Seen = { isBack: false, probe: 'waiting', answer: undefined }
    let hasEnded = false
    const { promise: back, resolve } = Promise.withResolvers<void>()
    arrived = (received) => {
      seen.isBack ||= received === payload
      if (seen.isBack) resolve()
    }
    const probed = notifier.probe(channel, payload).then(
      () => {
        seen.probe = 'taken'
        return back
      },
      (error: Error) => {
        seen.probe = 'failed'
        log.warning('the check could not be sent', { reason: error.message })
      },
    )
    const asked = session.query(LOOK, [channel]).then(
      ([row]) => {
        seen.answer = { isReplica: row?.replica === true, listens: row?.listens === true }
        queueUsage = Number(row?.usage)
      },
      () => {
        hasEnded = true
      },
    )
    for (;;) {
      const from = Date.now()
      await within(deadline, Promise.race([back, Promise.all([probed, asked])]))
      if (seen.isBack) return { isBack: true, fault: undefined }
      // Neither a process that was stopped nor one that works through a flood of notifications is a broken listener.
      const wasPaused = Date.now() - from > deadline * 1.5 + 1000
      if (hasEnded || seen.probe === 'failed' || !(wasPaused || lastArrival() > from)) break
    }
    // The sending side may be dead without a word: it is set up anew, and the next check tells.
    if (seen.probe === 'waiting') notifier.reconnect()
    return { isBack: false, fault: judge(seen, Date.now() - started) }
  }

  return {
    channel,
    get queueUsage() {
      return queueUsage
    },
    arrived: (payload) => arrived(payload),
    run,
  }
}

function judge({ probe, answer }: Seen, waited: number): string | undefined {
  if (!answer) return `the LISTEN session gave no answer within ${waited} ms: its connection is half open or its host is gone`
  if (answer.isReplica) return 'the server is a replica, which takes no notifications: connect to the primary'
  if (!answer.listens)
    return 'the LISTEN was swallowed, as a pooler in transaction mode does: connect to PostgreSQL itself, or to a pooler in session mode'
  if (probe !== 'taken') return undefined
  return `a notification that the database took did not come back within ${waited} ms: a pooler in transaction mode may hold it, connect to PostgreSQL itself`
}

/** Waits for a promise, but no longer than some milliseconds. Leaves no timer behind. */
function within(limit: number, promise: Promise<unknown>): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, limit)
    void promise.finally(() => {
      clearTimeout(timer)
      resolve()
    })
  })
}
