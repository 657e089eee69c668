/**
 * Owns the way to PostgreSQL: a bounded queue of messages, which go in order over one session, by NOTIFY or into the journal, and
 * questions, which go ahead of them.
 *
 * The first message leaves at once; what comes while a batch is under way is the next batch.
 */

import type { Outcome } from '../../channels/broker.ts'
import type { Envelope } from '../../channels/envelope.ts'
import {
  asDatabaseError,
  type Backend,
  type Connection,
  type Database,
  DatabaseError,
  type Row,
} from '../../database/connection.ts'
import type { Log } from '../../log.ts'
import type { Metrics } from '../../metrics.ts'
import { createBackoff } from '../../waiting.ts'
import { type Carrier, createKeeping, createNotifying } from './carriers.ts'
import { BATCH, createPipeline, type Settled } from './pipeline.ts'
import { createSendingSession } from './sending-session.ts'

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

/**
 * What may wait: the messages' lengths, each with an allowance for what it costs beside its text. What one client's messages share is
 * counted for each of them: a client that comes anew for each message shares nothing.
 */
const QUEUE_BYTES = 64 * 1024 * 1024
const MESSAGE_BYTES = 200

/** What the messages of a batch may come to, in characters, and the last beyond that: those of the journal may be a megabyte each. */
const BATCH_LENGTH = 4 * 1024 * 1024

interface Message extends Envelope {
  /** By the clock that never goes back, in milliseconds. */
  readonly acceptedAt: number
  readonly settled: (outcome: Outcome) => void
}

interface Question {
  readonly statement: string
  readonly parameters: readonly string[]
  readonly answered: (rows: readonly Row[]) => void
  readonly failed: (fault: DatabaseError) => void
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
  const queue = createQueue(createNotifying(channel), createKeeping(), isKept)
  let state: 'flowing' | 'paused' | 'stopped' = 'flowing'
  let isPumping = false
  const questions = createQuestions()
  let idle: (() => void)[] = []
  let answeredAt = Number.NEGATIVE_INFINITY
  /** What keeps messages from the database; said once, until an answer comes. */
  let obstacle: DatabaseError | undefined
  const backoff = createBackoff()
  const session = createSendingSession(database)
  const pipeline = createPipeline<Message>(session.connected)

  const is = (wanted: typeof state): boolean => state === wanted
  /** Messages that are accepted and neither in the database nor refused. */
  const waiting = (): number => queue.length + pipeline.messages

  /** While it is paused, what goes into the journal flows on: no reader of that misses anything. */
  function postAll(): void {
    if (is('stopped')) return
    if (is('flowing')) pipeline.resume()
    for (const list of queue.lists) {
      if (is('paused') && !list.isKept) continue
      const isFull = (): boolean => session.backend !== undefined && list.length >= BATCH
      while (list.length > 0 && pipeline.takes(isFull())) pipeline.post(queue.take(list), list.carrier)
    }
  }

  async function settle(settled: Settled<Message>): Promise<void> {
    if (settled.kind === 'taken') {
      answered()
      record(settled.messages)
    } else if (settled.kind === 'refused') {
      const { code, message: reason } = settled.fault
      log.warning('message refused by the database', { code, reason })
      settled.message.settled({ code, reason })
    } else if (settled.kind === 'delayed') await delay(settled.fault)
  }

  function record(messages: readonly Message[]): void {
    const now = performance.now()
    metrics.batches.observe(messages.length)
    for (const { acceptedAt, settled } of messages) {
      metrics.toCommit.observe((now - acceptedAt) / 1000)
      settled('committed')
    }
  }

  function answered(): void {
    answeredAt = performance.now()
    backoff.reset()
    if (obstacle) log.info('sending to the database again', { waiting: waiting() })
    obstacle = undefined
  }

  async function delay(fault: DatabaseError): Promise<void> {
    if (is('stopped')) return
    if (!obstacle) log.warning('cannot send to the database', { reason: fault.message, code: fault.code })
    obstacle = fault
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

/** Messages of one carrier that no batch has taken yet. */
interface List {
  readonly carrier: Carrier
  readonly isKept: boolean
  readonly length: number
  readonly messages: Message[]
}

/** What waits for both carriers shares one bound. */
function createQueue(notifying: Carrier, keeping: Carrier, isKept: (channel: string) => boolean) {
  const createList = (carrier: Carrier, isListKept: boolean): List => {
    const messages: Message[] = []
    return {
      carrier,
      isKept: isListKept,
      messages,
      get length() {
        return messages.length
      },
    }
  }
  const notified = createList(notifying, false)
  const kept = createList(keeping, true)
  let bytes = 0
  const cost = ({ head, tail }: Envelope): number => head.length + tail.length + MESSAGE_BYTES
  const total = (some: readonly Envelope[]): number => some.reduce((sum, message) => sum + cost(message), 0)
  return {
    lists: [notified, kept],
    get length() {
      return notified.length + kept.length
    },
    get bytes() {
      return bytes
    },
    /** @returns false when there is no room for them. */
    add(added: readonly Envelope[], settled: Message['settled']): boolean {
      const more = total(added)
      if (bytes + more > QUEUE_BYTES) return false
      bytes += more
      const acceptedAt = performance.now()
      for (const { channel, key, head, tail, bytes } of added)
        (isKept(channel) ? kept : notified).messages.push({ channel, key, head, tail, bytes, acceptedAt, settled })
      return true
    },
    /** The next batch. */
    take({ messages }: List): readonly Message[] {
      let count = 0
      for (let length = 0; count < Math.min(messages.length, BATCH) && length < BATCH_LENGTH; count++)
        length += messages[count]?.tail.length ?? 0
      const taken = messages.splice(0, count)
      bytes -= total(taken)
      return taken
    },
  }
}

/** Statements that go ahead of the messages. */
function createQuestions() {
  let questions: Question[] = []
  const take = (): readonly Question[] => {
    const taken = questions
    questions = []
    return taken
  }
  return {
    get length() {
      return questions.length
    },
    add: (statement: string, parameters: readonly string[]): Promise<readonly Row[]> =>
      new Promise((answered, failed) => questions.push({ statement, parameters, answered, failed })),
    /** Asks them one by one. @param told of each that was answered. */
    async askAll(connected: () => Promise<Connection>, told: () => void): Promise<void> {
      for (const { statement, parameters, answered, failed } of take()) {
        try {
          const rows = await (await connected()).query(statement, parameters)
          told()
          answered(rows)
        } catch (error) {
          failed(asDatabaseError(error))
        }
      }
    },
    failAll(fault: DatabaseError): void {
      for (const { failed } of take()) failed(fault)
    },
  }
}
