/**
 * Owns the LISTEN session: one machine with named states, one place of transition, its check of the whole way and its healing.
 *
 *     connecting ──listening──▶ listening ──lost──▶ waiting ──▶ connecting …
 *
 * A session counts as listening only after a notification has come back over it, for a pooler or a replica may accept LISTEN, or
 * seem to, and never deliver.
 */

import { asDatabaseError, type Database, DatabaseError, type ListeningConnection } from '../../database/connection.ts'
import type { Log } from '../../log.ts'
import { type Refusal, refuse } from '../../refusal.ts'
import { createBackoff } from '../../waiting.ts'
import type { Notifier } from './notifier.ts'
import { refusedOf } from './refused-channels.ts'
import { createRoundTrip } from './round-trip.ts'

export interface Listener {
  /** Whether notifications arrive, as far as is known. */
  readonly isListening: boolean
  /**
   * Connects, with a limited number of attempts, and listens until it is stopped.
   *
   * @returns once the first LISTEN stands. @throws what the last attempt met.
   */
  start(attempts: number): Promise<void>
  /** Whether the last check's notification came back. */
  readonly isProven: boolean
  /** `pg_notification_queue_usage()` at the last check, from 0 to 1. */
  readonly queueUsage: number
  /**
   * Listens to another channel beside the first, on the same session and on those after it. Resolves when that stands, or is left to
   * healing.
   *
   * @returns a refusal where there are too many channels, or PostgreSQL does not listen to this one.
   */
  listen(channel: string): Promise<Refusal | undefined>
  unlisten(channel: string): void
  stop(): void
}

export interface ListenerOptions {
  readonly database: Database
  readonly notifier: Notifier
  readonly channel: string
  /** The most channels beside the first that are listened to at once. */
  readonly maxChannels: number
  /** Milliseconds within which a broken listener is found; 0 checks every 10 s. */
  readonly checkInterval: number
  readonly log: Log
  /** Receives every notification, all that came in one read within one tick. */
  readonly notified: (channel: string, notification: string) => void
  /** The session broke. Healing follows unless this says false. */
  readonly lost: (cause: string) => boolean
  /**
   * Notifications between two times (milliseconds of UNIX time) may have been missed. It comes ahead of the first one behind them, so that
   * no reader gets that and leaves before it is told.
   */
  readonly missed: (from: number, to: number) => void
  /** PostgreSQL does not listen to this channel any more, and its readers are to go. */
  readonly failed: (channel: string) => void
  /** LISTEN stands again after it was away between two times, in milliseconds of UNIX time. */
  readonly restored: (from: number, to: number) => void
}

type State = 'stopped' | 'connecting' | 'listening' | 'waiting'

/** Milliseconds between checks where no interval is set. */
const CHECK_EVERY = 10_000

/** The shortest time given to a check, in milliseconds: below it, the program's own pauses would look like faults. */
const SHORTEST_CHECK = 50

/** Milliseconds for LISTEN on the first channel, and for each further thousand. */
const LISTEN_LIMIT = 10_000

/** The most milliseconds for the check that ends the making of a session. */
const FIRST_CHECK = 5000

const START_WAIT_LONGEST = 32_000

export function createListener(options: ListenerOptions): Listener {
  const { database, notifier, channel, log } = options
  const period = options.checkInterval > 0 ? Math.max(options.checkInterval / 2, SHORTEST_CHECK) : CHECK_EVERY
  const roundTrip = createRoundTrip(notifier, log)

  let state: State = 'stopped'
  let connection: ListeningConnection | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let endWait = (): void => undefined
  /** When a notification last arrived: in milliseconds of UNIX time for readers, and of the monotonic clock for intervals. */
  let lastArrival = 0
  let heardAt = 0
  /**
   * When the last check that came back set out, in milliseconds of UNIX time. All that was committed ahead of it has arrived; what was
   * committed later may still have been on its way when the session ended.
   */
  let provenAt = 0
  /** The beginning of a time of which readers are still to be told that they may have missed something. */
  let missedSince: number | undefined
  let isProven = false
  const others = new Set<string>()
  /** The channels of the present session. */
  const standing = new Map<string, Promise<Refusal | undefined>>()
  const backoff = createBackoff()

  const is = (wanted: State): boolean => state === wanted

  function enter(next: State): void {
    state = next
    clearTimeout(timer)
    if (next === 'listening') timer = setTimeout(() => void check(), period)
    if (next === 'stopped' || next === 'waiting') {
      isProven = false
      connection?.close()
      connection = undefined
      standing.clear()
    }
  }

  function arrived(): void {
    lastArrival = Date.now()
    heardAt = performance.now()
  }

  async function connect(): Promise<void> {
    enter('connecting')
    const session = await database.connectListening(roundTrip.channel, (payload) => {
      arrived()
      roundTrip.arrived(payload)
    })
    if (!is('connecting')) return session.close()
    void session.closed.then(() => {
      if (connection === session && is('listening')) lose('the connection to the database closed')
    })
    const limit = LISTEN_LIMIT * (1 + others.size / 1000)
    const late = new DatabaseError(`LISTEN was not answered within ${limit} ms`, 'LISTEN_TIMEOUT', false)
    const deadline = setTimeout(() => session.close(late), limit)
    try {
      // The tail of the notification queue may lie far behind after a long idle spell; asking for its usage moves it.
      await session.query('select pg_notification_queue_usage()')
      if (!is('connecting')) return session.close()
      connection = session
      await listenOnAll(session)
      clearTimeout(deadline)
      const setOutAt = Date.now()
      const { isBack, fault } = await roundTrip.run(
        session,
        Math.min(FIRST_CHECK, Math.max(period, FIRST_CHECK / 10)),
        () => heardAt,
      )
      if (!isBack) throw new Error(fault ?? 'no notification could be sent to prove that LISTEN works')
      isProven = true
      provenAt = setOutAt
    } catch (error) {
      session.close()
      standing.clear()
      throw error
    } finally {
      clearTimeout(deadline)
    }
    if (!is('connecting')) return
    arrived()
    enter('listening')
    const { place, version, encrypted } = session.server
    log.info('listening', { channel, server: place, version, tls: encrypted })
  }

  function receive(name: string, notification: string): void {
    arrived()
    tellMissed()
    options.notified(name, notification)
  }

  /**
   * Listens to all channels in one transaction, so that all stand at once: the first notification divides what may have been missed from
   * what is not. A channel that PostgreSQL refuses is left out.
   */
  async function listenOnAll(session: ListeningConnection): Promise<void> {
    const names = [...others]
    const standsNow = (name: string): unknown => standing.set(name, Promise.resolve(undefined))
    try {
      for (const name of names) standsNow(name)
      return await session.listen([channel, ...names], receive)
    } catch (error) {
      if (asDatabaseError(error).isPassing) throw error
    }
    const refused = await refusedOf(session, names)
    for (const name of refused) {
      log.error('cannot listen to a channel', { channel: name })
      others.delete(name)
      standing.delete(name)
      options.failed(name)
    }
    await session.listen([channel, ...names.filter((name) => !refused.has(name))], receive)
  }

  /** Listens once to a channel beside those of the present session, however many ask for it. */
  function listenOn(session: ListeningConnection, name: string): Promise<Refusal | undefined> {
    const listening = standing.get(name) ?? listenToOne(session, name)
    standing.set(name, listening)
    return listening
  }

  async function listenToOne(session: ListeningConnection, name: string): Promise<Refusal | undefined> {
    try {
      await session.listen([name], receive)
      return undefined
    } catch (error) {
      // A session that ended is set up anew with all its channels.
      if (connection !== session || !asDatabaseError(error).answered) return undefined
      log.error('cannot listen to a channel', { channel: name, reason: textOf(error) })
      others.delete(name)
      standing.delete(name)
      return refuse('CHANNEL_NOT_LISTENED')
    }
  }

  function tellMissed(): void {
    if (missedSince === undefined) return
    options.missed(missedSince, lastArrival)
    missedSince = undefined
  }

  async function check(): Promise<void> {
    const session = connection
    if (!session) return
    const started = performance.now()
    const setOutAt = Date.now()
    const { isBack, fault } = await roundTrip.run(session, period, () => heardAt)
    if (connection !== session || !is('listening')) return
    isProven = isBack
    if (isBack) provenAt = setOutAt
    if (fault !== undefined) return lose(fault)
    timer = setTimeout(() => void check(), Math.max(0, started + period - performance.now()))
  }

  function lose(cause: string): void {
    missedSince = provenAt
    enter('waiting')
    log.error('listener lost', { cause })
    if (!options.lost(cause)) return enter('stopped')
    notifier.hold()
    void heal(provenAt)
  }

  async function heal(from: number): Promise<void> {
    backoff.reset()
    while (is('waiting')) {
      await backoff.wait()
      if (!is('waiting')) return
      try {
        await connect()
        if (!is('listening')) return
        tellMissed()
        options.restored(from, lastArrival)
        notifier.release()
      } catch (error) {
        if (is('stopped')) return
        enter('waiting')
        missedSince ??= provenAt
        log.warning('cannot listen', { reason: textOf(error) })
      }
    }
  }

  return {
    get isListening() {
      return is('listening')
    },
    get isProven() {
      return isProven
    },
    get queueUsage() {
      return roundTrip.queueUsage
    },
    listen(name) {
      if (others.size >= options.maxChannels) return Promise.resolve(refuse('TOO_MANY_CHANNELS'))
      others.add(name)
      return connection ? listenOn(connection, name) : Promise.resolve(undefined)
    },
    unlisten(name) {
      if (!others.delete(name) || !standing.delete(name)) return
      connection
        ?.unlisten(name)
        .catch((error) => log.debug('unlisten was not answered', { channel: name, reason: textOf(error) }))
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
          log.warning('cannot listen', { reason: textOf(error), attempt, of: attempts, 'next-in': `${seconds}s` })
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

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
