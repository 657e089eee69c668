/**
 * Owns the round trip: a notification that the notifier sends must arrive on the LISTEN session. It distinguishes a dead or half-open
 * connection, a pooler that ignored LISTEN, a replica, and a NOTIFY that is blocked in the database.
 */
import type { Backend } from '../../database/connection.ts'
import type { Log } from '../../log.ts'
import { within } from '../../waiting.ts'
import type { Listener, Query } from './listener.ts'
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
  run(listener: Listener, deadline: number, heardAt: () => number): Promise<Finding>
}

/** What a run found of both sessions. */
export interface Finding {
  /** Proven: the notification came back. Unproven: it could not be sent, and LISTEN is well as far as can be told. */
  readonly listening: 'proven' | 'unproven' | { readonly fault: string }
  /** Lost: its session gives no answer and is not at work, or leads to another server than the LISTEN session does. */
  readonly sending: 'well' | 'lost'
}

/** What every check's channel begins with, of this server and of others. */
export const CHECK_PREFIX = 'pgws-check-'

/** What a run has seen so far. */
interface Seen {
  /** The notification on its way. */
  sent: 'waiting' | 'taken' | 'failed' | 'back'
  /** The query on the LISTEN session. */
  answer: 'waiting' | 'ended' | { readonly isReplica: boolean; readonly listens: boolean }
}

/** Asked on the LISTEN session itself. */
const LOOK = `select pg_is_in_recovery() as replica, pg_notification_queue_usage() as usage,
  exists (select from pg_listening_channels() as c where c = $1) as listens`

/** What a process is doing; no row when it has ended. */
const LOOK_AT_PROCESS = `select state, wait_event_type as kind, wait_event as event from pg_stat_activity
  where pid = $1::int and backend_start = $2::text::timestamptz`

export function createRoundTrip(notifier: Notifier, log: Log): RoundTrip {
  const channel = `${CHECK_PREFIX}${crypto.randomUUID()}`
  let runs = 0
  let queueUsage = 0
  let arrived: (payload: string) => void = () => undefined

  async function run(listener: Listener, deadline: number, heardAt: () => number): Promise<Finding> {
    const payload = String(++runs)
    const started = performance.now()
    const seen: Seen = { sent: 'waiting', answer: 'waiting' }
    const { promise: back, resolve } = Promise.withResolvers<void>()
    arrived = (received) => {
      if (received !== payload) return
      seen.sent = 'back'
      resolve()
    }
    const sent = notifier.ask('select pg_notify($1, $2)', [channel, payload]).then(
      () => {
        if (seen.sent === 'waiting') seen.sent = 'taken'
        return back
      },
      (error: Error) => {
        if (seen.sent === 'waiting') seen.sent = 'failed'
        log.warning('the check could not be sent', { reason: error.message })
      },
    )
    const asked = listener.query(LOOK, [channel]).then(
      ([row]) => {
        seen.answer = { isReplica: row?.replica === true, listens: row?.listens === true }
        queueUsage = Number(row?.usage)
      },
      () => {
        seen.answer = 'ended'
      },
    )
    for (;;) {
      const from = performance.now()
      await within(deadline, Promise.all([Promise.race([back, sent]), asked]))
      if (seen.sent === 'back') break
      // A process that was paused is not broken, and neither is a session that works through a flood.
      // Progress on one session says nothing about the other.
      const wasPaused = performance.now() - from > deadline * 1.5 + 1000
      const progressAt = seen.sent === 'waiting' ? notifier.answeredAt : heardAt()
      if (seen.answer === 'ended' || seen.sent === 'failed' || !(wasPaused || progressAt > from)) break
    }
    return judge(seen, listener, deadline, started)
  }

  async function judge(seen: Seen, listener: Listener, limit: number, started: number): Promise<Finding> {
    const { sent, answer } = seen
    const waited = Math.round(performance.now() - started)
    if (sent === 'back') {
      // Thousands of LISTENs may be queued before the query.
      const isUnanswered = answer === 'waiting' && listener.answeredAt <= started
      const takesNothing = isUnanswered && (await isIdle(listener.backend, limit))
      return { listening: takesNothing ? { fault: deaf(waited) } : 'proven', sending: 'well' }
    }
    const sending =
      sent === 'waiting' ? await judgeSender(typeof answer === 'object' ? listener.query : undefined, limit) : 'well'
    const fault = faultOf(seen, waited)
    if (fault === undefined) return { listening: 'unproven', sending }
    // It may have gone to another server or database: where a connection string leads can change under a session.
    const isElsewhere = sent === 'taken' && typeof answer === 'object' && answer.listens
    return { listening: { fault }, sending: isElsewhere ? 'lost' : sending }
  }

  /**
   * The sending session gives no answer. If it is dead, it is replaced and the next check tells. If it is blocked in the database, it is
   * left alone.
   *
   * @param query to ask about it; undefined when the LISTEN session gives no answer either.
   */
  async function judgeSender(query: Query | undefined, limit: number): Promise<Finding['sending']> {
    const { backend } = notifier
    // Without a session, the attempt to connect has its own limit.
    if (!backend) return 'well'
    const activity = query && (await activityOf(query, backend, limit))
    if (!activity?.isBusy) return 'lost'
    log.warning('a notification is blocked in the database', { pid: backend.pid, 'waits-for': activity.event })
    return 'well'
  }

  /** Whether a process waits for its client although it was asked something long ago. Under a flood of notifications it would be busy. */
  async function isIdle(backend: Backend, limit: number): Promise<boolean> {
    const activity = await activityOf(notifier.ask, backend, limit)
    return activity !== undefined && activity.state === 'idle' && activity.event === 'ClientRead'
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

interface Activity {
  readonly state: string
  readonly event: string
  /** It works, or waits for something other than its client. */
  readonly isBusy: boolean
}

/** What a process does; undefined when it has ended, or nobody answers. */
async function activityOf(query: Query, { pid, startedAt }: Backend, limit: number): Promise<Activity | undefined> {
  let activity: Activity | undefined
  const asked = query(LOOK_AT_PROCESS, [pid, startedAt]).then(
    ([row]) => {
      if (!row) return
      const { state, kind, event } = row
      activity = {
        state: String(state),
        event: String(event ?? 'nothing'),
        isBusy: state === 'active' && kind !== 'Client',
      }
    },
    // The session that was asked reports its own end.
    () => undefined,
  )
  await within(limit, asked)
  return activity
}

const deaf = (waited: number): string =>
  `the LISTEN session took no query for ${waited} ms, though it delivers: its connection is half open, towards the database`

function faultOf({ sent, answer }: Seen, waited: number): string | undefined {
  if (typeof answer !== 'object')
    return `the LISTEN session gave no answer within ${waited} ms: its connection is half open or its host is gone`
  if (answer.isReplica) return 'the server is a replica, which takes no notifications: connect to the primary'
  if (!answer.listens)
    return 'the LISTEN was swallowed, as a pooler in transaction mode does: connect to PostgreSQL itself, or to a pooler in session mode'
  if (sent !== 'taken') return undefined
  return `a notification that the database took did not come back within ${waited} ms: a pooler in transaction mode may hold it, connect to PostgreSQL itself`
}
