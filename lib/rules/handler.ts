/**
 * Owns the way of messages to the function that handles them: they wait in lines, one a sender, and lanes call the function with
 * batches of them, each in a session of its own.
 */

import { nextStamp } from '../channels/envelope.ts'
import type { Handler } from '../channels/handler.ts'
import type { Database } from '../database/connection.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { type CallsOptions, createCalls } from './calls.ts'
import { BATCH, createLane, type Lane } from './lane.ts'
import { createOutcomes } from './outcomes.ts'
import { createSenders, type Message } from './senders.ts'
import { createTransactions } from './transactions.ts'

export interface HandlingOptions extends CallsOptions {
  readonly database: Database
  /** Sessions at most. */
  readonly sessions: number
  readonly log: Log
  readonly metrics: Metrics
}

export interface PausableHandler extends Handler {
  /** Holds messages back: what is published while nobody listens would pass its readers by. */
  pause(): void
  resume(): void
}

/** Milliseconds that messages wait for the lanes under way before another one is opened. */
const PATIENCE = 5

export function createHandler({ database, sessions, log, metrics, ...options }: HandlingOptions): PausableHandler {
  const calls = createCalls(options)
  const senders = createSenders()
  const outcomes = createOutcomes(log, metrics, () => senders.length)
  const lanes: Lane[] = []
  let idle: (() => void)[] = []
  let state: 'flowing' | 'paused' | 'stopped' = 'flowing'
  let timer: ReturnType<typeof setTimeout> | undefined
  let stamp = 0

  function next(most: number): readonly Message[] {
    if (state !== 'flowing') return []
    const messages = senders.take(most)
    const now = Date.now()
    for (const message of messages) {
      if (message.id !== '') continue
      stamp = nextStamp(stamp, now)
      const digits = String(stamp)
      message.stamp = `${digits.slice(0, -6)}.${digits.slice(-6)}`
      message.id = crypto.randomUUID()
    }
    return messages
  }

  function openLane(): Lane | undefined {
    if (lanes.length >= sessions) return undefined
    const lane = createLane({
      transactions: createTransactions(database),
      calls,
      senders,
      next,
      ...outcomes,
      idle: settleDown,
    })
    lanes.push(lane)
    return lane
  }

  const startLane = (): void => (lanes.find(({ isBusy }) => !isBusy) ?? openLane())?.work()

  /** One lane has the largest batches. Another works beside it where there is more than it takes at once, or where it takes its time. */
  function wake(): void {
    if (state !== 'flowing' || senders.ready === 0) return
    if (senders.ready >= BATCH || !lanes.some(({ isBusy }) => isBusy)) startLane()
    else
      timer ??= setTimeout(() => {
        timer = undefined
        if (state !== 'flowing' || senders.ready === 0) return
        startLane()
        wake()
      }, PATIENCE)
  }

  function settleDown(): void {
    wake()
    if (senders.length === 0) for (const resolve of idle.splice(0)) resolve()
  }

  function resume(): void {
    if (state === 'paused') state = 'flowing'
    wake()
  }

  metrics.gauge('pgws_send_queue_messages', '', () => senders.length)
  metrics.gauge('pgws_send_queue_bytes', '', () => senders.bytes)

  return {
    handle(sender, frames, text, key, settled) {
      if (state === 'stopped' || !senders.add(sender, frames, text, key, settled)) return false
      wake()
      return true
    },
    pause() {
      if (state === 'flowing') state = 'paused'
    },
    resume,
    flush() {
      resume()
      if (senders.length === 0) return Promise.resolve()
      return new Promise((resolve) => idle.push(resolve))
    },
    stop() {
      state = 'stopped'
      clearTimeout(timer)
      idle = []
      for (const lane of lanes) lane.stop()
      return senders.length
    },
  }
}
