/**
 * Owns the way to PostgreSQL: what waits goes over one session, messages in their order, by NOTIFY or into the journal, and questions
 * ahead of them.
 *
 * The first message leaves at once; what comes while a batch is under way is the next batch.
 */

import type { Outcome } from '../../channels/broker.ts'
import type { Envelope } from '../../channels/envelope.ts'
import { type Backend, type Database, DatabaseError, type Row } from '../../database/connection.ts'
import { createLastingSession } from '../../database/lasting-session.ts'
import type { Log } from '../../log.ts'
import type { Metrics } from '../../metrics.ts'
import { createBackoff } from '../../waiting.ts'
import { createOutcomes } from './outcomes.ts'
import { BATCH, createPipeline, type Settled } from './pipeline.ts'
import { createQuestions } from './questions.ts'
import { createQueue, type Message } from './queue.ts'

export interface Notifier {
  /** As the broker's `publish`. */
  send(messages: readonly Envelope[], settled: (outcome: Outcome) => void): boolean
  /** Runs a statement ahead of the queue. @throws DatabaseError when PostgreSQL refuses it or cannot be reached. */
  ask(statement: string, parameters: readonly string[]): Promise<readonly Row[]>
  /** Holds messages back, but not questions: what goes out while the LISTEN session is away would pass its readers by. */
  pause(): void
  resume(): void
  /** The process that takes what is sent; undefined while there is no session. */
  readonly backend: Backend | undefined
  /** When PostgreSQL last answered anything that was sent, in milliseconds of the monotonic clock. */
  readonly answeredAt: number
  /** Drops the session, which may be half open, and sends what had no answer again over a new one. */
  reconnect(): void
  /** Resolves when every accepted message is in the database or refused. */
  drained(): Promise<void>
  /** Ends everything. @returns how many accepted messages did not reach the database. */
  stop(): number
}

export interface NotifierOptions {
  readonly database: Database
  /** The channel that carries every message. */
  readonly channel: string
  /** Whether a channel's messages go into the journal instead. */
  readonly isKept: (channel: string) => boolean
  readonly log: Log
  readonly metrics: Metrics
}

export function createNotifier({ database, channel, isKept, log, metrics }: NotifierOptions): Notifier {
  const queue = createQueue(channel, isKept)
  let state: 'flowing' | 'paused' | 'stopped' = 'flowing'
  let isPumping = false
  const questions = createQuestions()
  let idle: (() => void)[] = []
  let answeredAt = Number.NEGATIVE_INFINITY
  const backoff = createBackoff()
  const session = createLastingSession(database)
  const pipeline = createPipeline<Message>(session.connected)

  const is = (wanted: typeof state): boolean => state === wanted
  /** Messages that are accepted and neither in the database nor refused. */
  const waiting = (): number => queue.length + pipeline.messages
  const outcomes = createOutcomes(log, metrics, waiting)

  /** While it is paused, what goes into the journal flows on: no reader of that misses anything. */
  function postAll(): void {
    if (is('stopped')) return
    if (is('flowing')) pipeline.resume()
    for (const list of queue.lists) {
      if (is('paused') && !list.isKept) continue
      const isFull = (): boolean => list.length >= BATCH
      while (list.length > 0 && pipeline.takes(isFull())) pipeline.post(queue.take(list), list.carrier)
    }
  }

  async function settle(settled: Settled<Message>): Promise<void> {
    if (settled.kind === 'taken') {
      answered()
      outcomes.taken(settled.messages)
    } else if (settled.kind === 'refused') outcomes.refused(settled.message, settled.fault)
    else if (settled.kind === 'delayed') await delay(settled.fault)
  }

  function answered(): void {
    answeredAt = performance.now()
    backoff.reset()
    outcomes.answered()
  }

  async function delay(fault: DatabaseError): Promise<void> {
    if (is('stopped')) return
    outcomes.delayed(fault)
    questions.failAll(fault)
    await backoff.wait()
  }

  async function pump(): Promise<void> {
    isPumping = true
    while (!is('stopped')) {
      if (questions.length > 0) await questions.askAll(session.connected, answered)
      postAll()
      const ahead = pipeline.settle()
      if (ahead !== undefined) await settle(await ahead)
      else if (questions.length === 0) break
    }
    isPumping = false
    if (waiting() === 0) for (const resolve of idle.splice(0)) resolve()
  }

  function wake(): void {
    if (!isPumping && !is('stopped')) void pump()
  }

  metrics.gauge('pgws_send_queue_messages', 'Accepted messages that wait for the database or its answer.', waiting)
  metrics.gauge(
    'pgws_send_queue_bytes',
    'What the messages that wait for the database take of the buffer, in bytes.',
    () => queue.bytes,
  )

  return {
    send(messages, settled) {
      if (is('stopped') || !queue.add(messages, settled)) return false
      wake()
      return true
    },
    ask(statement, parameters) {
      const asked = questions.add(statement, parameters)
      backoff.cut()
      wake()
      return asked
    },
    pause() {
      if (is('flowing')) state = 'paused'
    },
    resume() {
      if (is('paused')) state = 'flowing'
      wake()
    },
    get backend() {
      return session.backend
    },
    get answeredAt() {
      return answeredAt
    },
    reconnect() {
      session.replace()
      backoff.cut()
    },
    drained() {
      if (waiting() === 0) return Promise.resolve()
      return new Promise((resolve) => idle.push(resolve))
    },
    stop() {
      const left = waiting()
      state = 'stopped'
      questions.failAll(new DatabaseError('the notifier has stopped', 'STOPPED', false))
      idle = []
      session.stop()
      backoff.cut()
      return left
    },
  }
}
