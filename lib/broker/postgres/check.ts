/** Owns when the round trip to PostgreSQL is checked, and what the last check found. */

import type { Log } from '../../log.ts'
import type { Metrics } from '../../metrics.ts'
import type { Delivery } from './delivery.ts'
import type { Listener } from './listener.ts'
import type { Notifier } from './notifier.ts'
import { createRoundTrip, type Finding } from './round-trip.ts'

export interface Check {
  /** The database channel of the checks. */
  readonly channel: string
  /** A notification on that channel. */
  arrived(payload: string): void
  /** Whether the last check's notification came back. */
  readonly isProven: boolean
  /** Proves a LISTEN session that was just made. @throws what is wrong with it. */
  prove(listener: Listener): Promise<void>
  /** Checks a session again and again, until the check is stopped or finds a fault. */
  watch(listener: Listener, fault: (cause: string) => void): void
  /** Nothing is proven from now on. */
  stop(): void
}

export interface CheckOptions {
  /** Milliseconds within which a broken listener is found; 0 checks every 10 s. */
  readonly interval: number
  readonly notifier: Notifier
  readonly delivery: Delivery
  readonly log: Log
  readonly metrics: Metrics
}

/** Milliseconds between checks where no interval is set. */
const CHECK_EVERY = 10_000

/** The shortest time given to a check, in milliseconds: below it, the program's own pauses would look like faults. */
const SHORTEST_CHECK = 50

/** The most milliseconds for the check that ends the making of a session. */
const FIRST_CHECK = 5000

export function createCheck({ interval, notifier, delivery, log, metrics }: CheckOptions): Check {
  const period = interval > 0 ? Math.max(interval / 2, SHORTEST_CHECK) : CHECK_EVERY
  const roundTrip = createRoundTrip(notifier, log)
  /** The session that is checked, from its first check on. */
  let checked: Listener | undefined
  let isProven = false
  let timer: ReturnType<typeof setTimeout> | undefined

  /** Sends a notification round, and acts on what that finds of the sending session. @returns undefined where the check was stopped. */
  async function examine(listener: Listener, limit: number): Promise<Finding['listening'] | undefined> {
    const setOut = delivery.mark()
    const { listening, sending } = await roundTrip.run(listener, limit, () => delivery.heardAt)
    if (checked !== listener) return undefined
    if (sending === 'lost') notifier.reconnect()
    isProven = listening === 'proven'
    if (isProven) delivery.proven(setOut)
    return listening
  }

  function watch(listener: Listener, fault: (cause: string) => void): void {
    const run = async (): Promise<void> => {
      const started = performance.now()
      const found = await examine(listener, period)
      if (found === undefined) return
      if (typeof found === 'object') fault(found.fault)
      else timer = setTimeout(() => void run(), Math.max(0, started + period - performance.now()))
    }
    timer = setTimeout(() => void run(), period)
  }

  metrics.gauge('pgws_listener_up', 'Whether the last check of LISTEN succeeded.', () => Number(isProven))
  metrics.gauge(
    'pgws_notification_queue_usage',
    "Part of PostgreSQL's notification queue in use, from 0 to 1.",
    () => roundTrip.queueUsage,
  )

  return {
    channel: roundTrip.channel,
    arrived(payload) {
      delivery.arrived()
      roundTrip.arrived(payload)
    },
    get isProven() {
      return isProven
    },
    async prove(listener) {
      checked = listener
      const found = await examine(listener, Math.min(FIRST_CHECK, Math.max(period, FIRST_CHECK / 10)))
      if (typeof found === 'object') throw new Error(found.fault)
      if (found === 'unproven') throw new Error('no notification could be sent to prove that LISTEN works')
    },
    watch,
    stop() {
      checked = undefined
      isProven = false
      clearTimeout(timer)
    },
  }
}
