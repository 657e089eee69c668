/**
 * Owns both sessions with PostgreSQL, that of LISTEN and that of NOTIFY: one machine with named states and one place of transition.
 *
 *     starting ──▶ listening ──▶ away ──▶ listening …        any ──▶ draining ──▶ stopped
 *
 * It is listening only after a notification has come back, for a pooler or a replica may accept LISTEN, or seem to, and never
 * deliver. While LISTEN is away messages are held back: what goes out meanwhile would pass its readers by.
 */

import type { Broker, Receiver } from '../../channels/broker.ts'
import { channelOf } from '../../channels/envelope.ts'
import { CHANNEL_BYTES } from '../../config/values.ts'
import { asDatabaseError, type Database } from '../../database/connection.ts'
import type { Log } from '../../log.ts'
import type { Metrics } from '../../metrics.ts'
import { type Refusal, refuse } from '../../refusal.ts'
import { createBackoff } from '../../waiting.ts'
import { type Listener, openListener } from './listener.ts'
import { createMissed } from './missed.ts'
import { createNotifier } from './notifier.ts'
import { CHECK_PREFIX, createRoundTrip } from './round-trip.ts'

export interface PostgresOptions {
  readonly database: Database
  /** The channel that carries every message. */
  readonly channel: string
  /** Whether the database's channel of this name is delivered directly. */
  readonly isDirect: (channel: string) => boolean
  /** The most channels beside the first that are listened to at once. */
  readonly maxChannels: number
  /** Milliseconds within which a broken listener is found and healed; 0 checks every 10 s, and heals nothing. */
  readonly checkInterval: number
  /** Attempts to reach the database at the start. */
  readonly attempts: number
  readonly log: Log
  readonly metrics: Metrics
}

type State = 'starting' | 'listening' | 'away' | 'draining' | 'stopped'

/** Milliseconds between checks where no interval is set. */
const CHECK_EVERY = 10_000

/** The shortest time given to a check, in milliseconds: below it, the program's own pauses would look like faults. */
const SHORTEST_CHECK = 50

/** The most milliseconds for the check that ends the making of a session. */
const FIRST_CHECK = 5000

/** The longest wait between two attempts at the start, in milliseconds. */
const START_WAIT_LONGEST = 32_000

export function createPostgresBroker(options: PostgresOptions): Broker {
  const { database, channel, checkInterval, log, metrics } = options
  const period = checkInterval > 0 ? Math.max(checkInterval / 2, SHORTEST_CHECK) : CHECK_EVERY
  const notifier = createNotifier({ database, channel, log, metrics })
  const roundTrip = createRoundTrip(notifier, log)
  const missed = createMissed({ wall: Date.now, monotonic: () => performance.now() })
  const followed = new Set<string>()
  const backoff = createBackoff()
  let receiver: Receiver | undefined
  let state: State = 'starting'
  /** The session of LISTEN, from when its LISTENs are begun. */
  let listener: Listener | undefined
  let isProven = false
  let timer: ReturnType<typeof setTimeout> | undefined

  const is = (wanted: State): boolean => state === wanted

  function enter(next: State): void {
    state = next
    clearTimeout(timer)
    if (next === 'listening') timer = setTimeout(() => void check(), period)
    if (next === 'listening' || next === 'draining') notifier.resume()
    if (next === 'away') notifier.pause()
    if (next === 'away' || next === 'stopped') drop()
    if (next === 'stopped') backoff.cut()
  }

  function drop(): void {
    isProven = false
    listener?.close()
    listener = undefined
  }

  function notified(name: string, notification: string): void {
    missed.arrived()
    tellMissed()
    receiver?.message(name === channel ? (channelOf(notification) ?? channel) : name, notification)
  }

  function tellMissed(): void {
    const span = missed.take()
    if (span) receiver?.missed(span.from, span.to)
  }

  /** Sets up the session of LISTEN and proves it. @throws what it met, with the session closed. */
  async function listen(): Promise<void> {
    const opened = await openListener({
      database,
      checkChannel: roundTrip.channel,
      log,
      checked: (payload) => {
        missed.arrived()
        roundTrip.arrived(payload)
      },
      notified,
    })
    if (is('stopped')) return opened.close()
    listener = opened
    try {
      for (const name of await opened.listenToAll(channel, [...followed])) lost(name)
      await prove(opened)
    } catch (error) {
      drop()
      throw error
    }
    if (is('stopped')) return
    missed.arrived()
    const { place, version, encrypted } = opened.server
    log.info('listening', { channel, server: place, version, tls: encrypted })
    void opened.closed.then(() => {
      if (listener === opened && is('listening')) lose('the connection to the database closed')
    })
  }

  async function prove(opened: Listener): Promise<void> {
    const setOutAt = Date.now()
    const limit = Math.min(FIRST_CHECK, Math.max(period, FIRST_CHECK / 10))
    const { listening, sending } = await roundTrip.run(opened, limit, () => missed.heardAt)
    if (sending === 'lost') notifier.reconnect()
    if (typeof listening === 'object') throw new Error(listening.fault)
    if (listening === 'unproven') throw new Error('no notification could be sent to prove that LISTEN works')
    isProven = true
    missed.proven(setOutAt)
  }

  async function check(): Promise<void> {
    const checked = listener
    if (!checked) return
    const started = performance.now()
    const setOutAt = Date.now()
    const { listening, sending } = await roundTrip.run(checked, period, () => missed.heardAt)
    if (listener !== checked || !is('listening')) return
    if (sending === 'lost') notifier.reconnect()
    isProven = listening === 'proven'
    if (isProven) missed.proven(setOutAt)
    if (typeof listening === 'object') return lose(listening.fault)
    timer = setTimeout(() => void check(), Math.max(0, started + period - performance.now()))
  }

  function lost(name: string): void {
    log.error('cannot listen to a channel', { channel: name })
    followed.delete(name)
    receiver?.lost(name)
  }

  function lose(cause: string): void {
    const from = missed.lost()
    log.error('listener lost', { cause })
    enter('away')
    if (checkInterval > 0) return void heal(from)
    log.error('stopping, since the listener lost is not healed', { 'set-to-heal': 'PGWS_CHECK_LISTENER_INTERVAL' })
    receiver?.ended()
  }

  async function heal(from: number): Promise<void> {
    backoff.reset()
    while (is('away')) {
      await backoff.wait()
      if (!is('away')) return
      try {
        await listen()
        if (!is('away')) return
        tellMissed()
        restored(from, missed.lastArrival)
        enter('listening')
      } catch (error) {
        if (is('stopped')) return
        missed.lost()
        log.warning('cannot listen', { reason: asDatabaseError(error).message })
      }
    }
  }

  function restored(from: number, to: number): void {
    metrics.reconnections.add()
    metrics.outage.add((to - from) / 1000)
    log.info('listening again', { 'missed-from': from / 1000, 'missed-to': to / 1000 })
    receiver?.restored(from, to)
  }

  metrics.gauge('pgws_listener_up', 'Whether the last check of LISTEN succeeded.', () => Number(isProven))
  metrics.gauge(
    'pgws_notification_queue_usage',
    "Part of PostgreSQL's notification queue in use, from 0 to 1.",
    () => roundTrip.queueUsage,
  )

  return {
    publish: notifier.send,
    follow(name) {
      if (name === channel || !isChannelName(name) || !options.isDirect(name)) return undefined
      if (followed.size >= options.maxChannels) return Promise.resolve(refuse('TOO_MANY_CHANNELS'))
      followed.add(name)
      return listener ? refusalOf(name, listener) : Promise.resolve(undefined)
    },
    unfollow(name) {
      if (followed.delete(name)) listener?.unlisten(name)
    },
    get isReady() {
      return isProven
    },
    async start(to) {
      receiver = to
      for (let attempt = 1; is('starting'); attempt++) {
        try {
          await listen()
          if (is('starting')) enter('listening')
          return
        } catch (error) {
          if (is('stopped')) return
          if (attempt >= options.attempts) throw error
          const wait = Math.min(1000 * 2 ** (attempt - 1), START_WAIT_LONGEST)
          const reason = asDatabaseError(error).message
          log.warning('cannot listen', { reason, attempt, of: options.attempts, 'next-in': `${wait / 1000}s` })
          await backoff.wait(wait)
        }
      }
    },
    flush() {
      enter('draining')
      return notifier.drained()
    },
    stop() {
      enter('stopped')
      return notifier.stop()
    },
  }

  /** Where a channel cannot be listened to, nobody follows it. */
  async function refusalOf(name: string, session: Listener): Promise<Refusal | undefined> {
    const refusal = await session.listen(name)
    if (refusal) followed.delete(name)
    return refusal
  }
}

/** Whether a name can be listened to, and is not that of a check. */
const isChannelName = (name: string): boolean =>
  name !== '' && !name.includes('\0') && Buffer.byteLength(name) <= CHANNEL_BYTES && !name.startsWith(CHECK_PREFIX)
