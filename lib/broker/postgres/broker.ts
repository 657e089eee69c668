/**
 * Owns both sessions with PostgreSQL, that of LISTEN and that of NOTIFY: one machine with named states and one place of transition.
 *
 *     starting ──▶ listening ──▶ away ──▶ listening …        any ──▶ draining ──▶ stopped
 *
 * While the LISTEN session is away, messages are held back, because readers would miss them.
 */

import type { Broker } from '../../channels/broker.ts'
import { asDatabaseError, type Database } from '../../database/connection.ts'
import { Fault } from '../../fault.ts'
import type { Log } from '../../log.ts'
import type { Metrics } from '../../metrics.ts'
import { createBackoff } from '../../waiting.ts'
import { createCheck } from './check.ts'
import { createDelivery } from './delivery.ts'
import { createFollowedChannels } from './followed-channels.ts'
import { JournalFault } from './journal/inspection.ts'
import type { JournalOptions } from './journal/journal.ts'
import { createKeptMessages } from './journal/kept-messages.ts'
import { createListening, type Signals } from './listening.ts'
import type { Mark } from './missed.ts'
import { createNotifier } from './notifier.ts'

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
  /** Undefined where none is read. */
  readonly journal: JournalSettings | undefined
  readonly signals: Signals
  /** What is held back while messages are. */
  readonly held?: { pause(): void; resume(): void } | undefined
  /** What else the database is asked before the start. @throws Fault where trying again does not help. */
  readonly inspect?: (() => Promise<unknown>) | undefined
  /** Attempts to reach the database at the start. */
  readonly attempts: number
  readonly log: Log
  readonly metrics: Metrics
}

export interface JournalSettings extends Pick<JournalOptions, 'retention' | 'cacheBytes'> {
  /** Whether what clients send on a channel goes into the journal. */
  readonly isKept: (channel: string) => boolean
}

type State = 'starting' | 'listening' | 'away' | 'draining' | 'stopped'

/** The longest wait between two attempts at the start, in milliseconds. */
const START_WAIT_LONGEST = 32_000

export function createPostgresBroker(options: PostgresOptions): Broker {
  const { database, channel, checkInterval, log, metrics } = options
  const notifier = createNotifier({ database, channel, isKept: options.journal?.isKept ?? (() => false), log, metrics })
  const delivery = createDelivery(channel, log, metrics)
  const check = createCheck({ interval: checkInterval, notifier, delivery, log, metrics })
  const journal = options.journal && createKeptMessages({ ...options.journal, database, checkInterval, delivery, log, metrics })
  const bells = journal?.bells ?? []
  const followed = createFollowedChannels({
    isDirect: (name) => name !== channel && !bells.includes(name) && !options.signals.has(name) && options.isDirect(name),
    most: options.maxChannels,
    listener: () => listening.listener,
  })
  const listening = createListening({
    database,
    channel,
    check,
    delivery,
    journal,
    signals: options.signals,
    followed,
    log,
    isStopped: () => is('stopped'),
    lost: lose,
  })
  const backoff = createBackoff()
  let state: State = 'starting'

  const is = (wanted: State): boolean => state === wanted

  function enter(next: State): void {
    state = next
    if (next === 'listening') listening.watch()
    for (const way of [notifier, options.held]) {
      if (next === 'listening' || next === 'draining') way?.resume()
      if (next === 'away') way?.pause()
    }
    if (next === 'away' || next === 'stopped') listening.drop()
    if (next === 'stopped') backoff.cut()
    if (next === 'stopped') journal?.stop()
  }

  function lose(cause: string): void {
    if (!is('listening')) return
    const since = delivery.lost()
    log.error('listener lost', { cause })
    enter('away')
    if (checkInterval > 0) void heal(since)
    else delivery.ended()
  }

  async function heal(since: Mark): Promise<void> {
    backoff.reset()
    while (is('away')) {
      await backoff.wait()
      if (!is('away')) return
      try {
        await listening.open()
        if (!is('away')) return
        delivery.restored(since)
        enter('listening')
      } catch (error) {
        if (is('stopped')) return
        delivery.lost()
        log.warning('cannot listen', { reason: asDatabaseError(error).message })
      }
    }
  }

  /** @returns milliseconds until the next attempt. @throws the fault, where it was the last. */
  function waitAtStart(fault: unknown, attempt: number): number {
    listening.drop()
    if (attempt >= options.attempts || fault instanceof JournalFault || fault instanceof Fault) throw fault
    const wait = Math.min(1000 * 2 ** (attempt - 1), START_WAIT_LONGEST)
    const reason = asDatabaseError(fault).message
    log.warning('cannot listen', { reason, attempt, of: options.attempts, 'next-in': `${wait / 1000}s` })
    return wait
  }

  return {
    publish: notifier.send,
    history: journal?.history,
    follow: followed.follow,
    unfollow: followed.unfollow,
    get isReady() {
      return check.isProven && journal?.isReading !== false
    },
    async start(receiver) {
      delivery.start(receiver)
      for (let attempt = 1; is('starting'); attempt++) {
        try {
          await options.inspect?.()
          await listening.open()
          if (is('starting')) enter('listening')
        } catch (error) {
          if (is('starting')) await backoff.wait(waitAtStart(error, attempt))
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
}
