/**
 * Owns the check of the whole way: a notification that the notifier sends must arrive on the LISTEN session. It tells a dead or half-open
 * connection, a pooler that swallowed LISTEN, a replica, and a NOTIFY that is blocked in the database from each other.
 */
import type { Backend, ListeningConnection } from '../../database/connection.ts'
import type { Log } from '../../log.ts'
import { within } from '../../waiting.ts'
import type { Notifier } from './notifier.ts'

export interface RoundTrip {
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
   * @param heardAt when a notification last arrived on the session, in milliseconds of the monotonic clock.
   */
  run(session: ListeningConnection, deadline: number, heardAt: () => number): Promise<Finding>
}

export interface Finding {
  /** Whether the notification came back. */
  readonly isBack: boolean
  /** What is wrong with the LISTEN session; undefined where it is well, though the notification could not be sent. */
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

/** What the process of the sending session is doing; no row when it has ended. */
const LOOK_AT_SENDER = `select state, wait_event_type as kind, wait_event as event from pg_stat_activity
  where pid = $1::int and backend_start = $2::text::timestamptz`

export function createRoundTrip(notifier: Notifier, log: Log): RoundTrip {
  const channel = `${CHECK_PREFIX}${crypto.randomUUID()}`
  let runs = 0
  let queueUsage = 0
  let arrived: (payload: string) => void = () => undefined

  async function run(session: ListeningConnection, deadline: number, heardAt: () => number): Promise<Finding> {
    const payload = String(++runs)
    const started = performance.now()
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
      const from = performance.now()
      await within(deadline, Promise.race([back, Promise.all([probed, asked])]))
      if (seen.isBack) return { isBack: true, fault: undefined }
      // Neither a process that was stopped nor a session that works through a flood is broken. Each session speaks for itself alone.
      const wasPaused = performance.now() - from > deadline * 1.5 + 1000
      const progressAt = seen.probe === 'waiting' ? notifier.answeredAt : heardAt()
      if (hasEnded || seen.probe === 'failed' || !(wasPaused || progressAt > from)) break
    }
    if (seen.probe === 'waiting') await judgeSender(seen.answer ? session : undefined, deadline)
    // It may have gone to another server or database: where a connection string leads can change under a session.
    if (seen.probe === 'taken' && seen.answer?.listens) notifier.reconnect()
    return { isBack: false, fault: judge(seen, performance.now() - started) }
  }

  /**
   * The sending side gives no answer. Dead, it is set up anew, and the next check tells; blocked in the database, it is left alone.
   *
   * @param session to ask about it; undefined when that gives no answer either.
   */
  async function judgeSender(session: ListeningConnection | undefined, deadline: number): Promise<void> {
    const { backend } = notifier
    // Without a session, the attempt to connect has its own limit.
    if (!backend) return
    const doing = session && (await activity(session, backend, deadline))
    if (doing) log.warning('a notification is blocked in the database', { pid: backend.pid, 'waits-for': doing })
    else notifier.reconnect()
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

/**
 * What a process waits for or works at; undefined when it has ended, waits for its client, or the session gives no answer.
 */
async function activity(session: ListeningConnection, { pid, startedAt }: Backend, limit: number): Promise<string | undefined> {
  let doing: string | undefined
  const asked = session.query(LOOK_AT_SENDER, [pid, startedAt]).then(
    ([row]) => {
      if (row?.state === 'active' && row.kind !== 'Client') doing = String(row.event ?? 'nothing')
    },
    // Its end is told by the session itself.
    () => undefined,
  )
  await within(limit, asked)
  return doing
}

function judge({ probe, answer }: Seen, elapsed: number): string | undefined {
  const waited = Math.round(elapsed)
  if (!answer) return `the LISTEN session gave no answer within ${waited} ms: its connection is half open or its host is gone`
  if (answer.isReplica) return 'the server is a replica, which takes no notifications: connect to the primary'
  if (!answer.listens)
    return 'the LISTEN was swallowed, as a pooler in transaction mode does: connect to PostgreSQL itself, or to a pooler in session mode'
  if (probe !== 'taken') return undefined
  return `a notification that the database took did not come back within ${waited} ms: a pooler in transaction mode may hold it, connect to PostgreSQL itself`
}
