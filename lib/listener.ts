/**
 * Owns the LISTEN session: one machine with named states, one place of transition, its check of the whole way and its healing.
 *
 *     connecting ──listening──▶ listening ──lost──▶ waiting ──▶ connecting …
 *
 * A session counts as listening only after a notification has come back over it, for a pooler or a replica may accept LISTEN, or
 * seem to, and never deliver.
 */
import { createBackoff } from './backoff.ts'
import type { Database, ListeningConnection } from './database.ts'
import type { Log } from './log.ts'
import type { Notifier } from './notifier.ts'

export interface Listener {
  /** Whether notifications arrive, as far as is known. */
  readonly isListening: boolean
  /**
   * Connects, with a limited number of attempts, and listens until it is stopped.
   *
   * @returns once the first LISTEN stands. @throws what the last attempt met.
   */
  start(attempts: number): Promise<void>
  stop(): void
}

export interface ListenerOptions {
  readonly database: Database
  readonly notifier: Notifier
  readonly channel: string
  /** Milliseconds within which a broken listener is found; 0 checks every 10 s. */
  readonly checkInterval: number
  readonly log: Log
  /** Receives every notification, all that came in one read within one tick. */
  readonly notified: (notification: string) => void
  /** The session broke. Healing follows unless this says false. */
  readonly lost: (cause: string) => boolean
  /** LISTEN stands again after notifications between two times (milliseconds of UNIX time) may have been missed. */
  readonly restored: (from: number, to: number) => void
}

type State = 'stopped' | 'connecting' | 'listening' | 'waiting'

/** What a check has seen so far. */
interface Seen {
  isBack: boolean
  probe: 'waiting' | 'taken' | 'failed'
  answer: { readonly isReplica: boolean; readonly listens: boolean } | undefined
}

/** Asked on the LISTEN session itself. */
const LOOK = 'select pg_is_in_recovery() as replica, exists (select from pg_listening_channels() as c where c = $1) as listens'

/** Milliseconds between checks where no interval is set. */
const CHECK_EVERY = 10_000

/** The shortest time given to a check, in milliseconds: below it, the program's own pauses would look like faults. */
const SHORTEST_CHECK = 50

/** The most milliseconds for the check that ends the making of a session. */
const FIRST_CHECK = 5000

const START_WAIT_LONGEST = 32_000

export function createListener(options: ListenerOptions): Listener {
  const { database, notifier, channel, log } = options
  const period = options.checkInterval > 0 ? Math.max(options.checkInterval / 2, SHORTEST_CHECK) : CHECK_EVERY
  // A channel of its own, so that nobody who listens beside this server hears the checks.
  const checkChannel = `pgws-check-${crypto.randomUUID()}`

  let state: State = 'stopped'
  let connection: ListeningConnection | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let endWait = (): void => undefined
  let lastArrival = 0
  let checks = 0
  let arrived: (payload: string) => void = () => undefined
  const backoff = createBackoff()

  const is = (wanted: State): boolean => state === wanted

  function enter(next: State): void {
    state = next
    clearTimeout(timer)
    if (next === 'listening') timer = setTimeout(() => void check(), period)
    if (next === 'stopped' || next === 'waiting') {
      connection?.close()
      connection = undefined
    }
  }

  async function connect(): Promise<void> {
    enter('connecting')
    const session = await database.connectListening(checkChannel, (payload) => arrived(payload))
    if (!is('connecting')) return session.close()
    connection = session
    void session.closed.then(() => {
      if (connection === session && is('listening')) lose('the connection to the database closed')
    })
    try {
      // The tail of the notification queue may lie far behind after a long idle spell; asking for its usage moves it.
      await session.query('select pg_notification_queue_usage()')
      await session.listen(channel, (notification) => {
        lastArrival = Date.now()
        options.notified(notification)
      })
      const fault = await roundTrip(session, Math.min(FIRST_CHECK, Math.max(period, FIRST_CHECK / 10)))
      if (fault) throw new Error(fault)
    } catch (error) {
      session.close()
      throw error
    }
    if (!is('connecting')) return
    lastArrival = Date.now()
    enter('listening')
    const { place, version, encrypted } = session.server
    log.info('listening', { channel, server: place, version, tls: encrypted })
  }

  async function check(): Promise<void> {
    const session = connection
    if (!session) return
    const started = Date.now()
    const fault = await roundTrip(session, period)
    if (connection !== session || !is('listening')) return
    if (fault) return lose(fault)
    timer = setTimeout(() => void check(), Math.max(0, started + period - Date.now()))
  }

  /**
   * Sends a notification by the notifier and awaits it on the LISTEN session, with a query on that session beside it.
   *
   * @returns undefined when the listener works, else what is wrong.
   */
  async function roundTrip(session: ListeningConnection, deadline: number): Promise<string | undefined> {
    const payload = String(++checks)
    const started = Date.now()
    const seen: Seen = { isBack: false, probe: 'waiting', answer: undefined }
    const { promise: back, resolve } = Promise.withResolvers<void>()
    arrived = (received) => {
      lastArrival = Date.now()
      seen.isBack ||= received === payload
      if (seen.isBack) resolve()
    }
    const probed = notifier.probe(checkChannel, payload).then(
      () => {
        seen.probe = 'taken'
        return back
      },
      (error: Error) => {
        seen.probe = 'failed'
        log.warning('the check could not be sent', { reason: error.message })
      },
    )
    const asked = session.query(LOOK, [checkChannel]).then(
      ([row]) => {
        seen.answer = { isReplica: row?.replica === true, listens: row?.listens === true }
      },
      () => undefined, // The session has ended; that it gave no answer is judged below.
    )
    for (;;) {
      const from = Date.now()
      await within(deadline, Promise.race([back, Promise.all([probed, asked])]))
      if (seen.isBack) return undefined
      // Neither a process that was stopped nor one that works through a flood of notifications is a broken listener.
      const wasPaused = Date.now() - from > deadline * 1.5 + 1000
      if (connection !== session || seen.probe === 'failed' || !(wasPaused || lastArrival > from)) break
    }
    // The sending side may be dead without a word: it is set up anew, and the next check tells.
    if (seen.probe === 'waiting') notifier.reconnect()
    return judge(seen, Date.now() - started)
  }

  function judge({ probe, answer }: Seen, waited: number): string | undefined {
    if (!answer) return `the LISTEN session gave no answer within ${waited} ms: its connection is half open or its host is gone`
    if (answer.isReplica) return 'the server is a replica, which takes no notifications: connect to the primary'
    if (!answer.listens)
      return 'the LISTEN was swallowed, as a pooler in transaction mode does: connect to PostgreSQL itself, or to a pooler in session mode'
    if (probe === 'taken')
      return `a notification that the database took did not come back within ${waited} ms: a pooler in transaction mode may hold it, connect to PostgreSQL itself`
    return state === 'connecting' ? 'no notification could be sent to prove that LISTEN works' : undefined
  }

  function lose(cause: string): void {
    const from = lastArrival
    enter('waiting')
    log.error('listener lost', { cause })
    if (!options.lost(cause)) return enter('stopped')
    notifier.hold()
    void heal(from)
  }

  async function heal(from: number): Promise<void> {
    backoff.reset()
    while (is('waiting')) {
      await backoff.wait()
      if (!is('waiting')) return
      try {
        await connect()
        if (!is('listening')) return
        options.restored(from, lastArrival)
        notifier.release()
      } catch (error) {
        if (is('stopped')) return
        enter('waiting')
        log.warning('cannot listen', { reason: messageOf(error) })
      }
    }
  }

  return {
    get isListening() {
      return is('listening')
    },
    async start(attempts) {
      for (let attempt = 1; ; attempt++) {
        try {
          return await connect()
        } catch (error) {
          if (is('stopped')) return
          enter('waiting')
          if (attempt >= attempts) throw error
          const seconds = Math.min(2 ** (attempt - 1), START_WAIT_LONGEST / 1000)
          log.warning('cannot listen', { reason: messageOf(error), attempt, of: attempts, 'next-in': `${seconds}s` })
          await new Promise<void>((resolve) => {
            const wait = setTimeout(resolve, seconds * 1000)
            endWait = () => {
              clearTimeout(wait)
              resolve()
            }
          })
        }
        if (is('stopped')) return
      }
    },
    stop() {
      enter('stopped')
      endWait()
      backoff.cut()
    },
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

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
