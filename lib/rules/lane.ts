/** Owns a session in which the function is called, one batch after the other: what becomes of a batch, and of its messages. */

import { asDatabaseError, type DatabaseError } from '../database/connection.ts'
import { createBackoff } from '../waiting.ts'
import type { Answers, Calls } from './calls.ts'
import type { Message, Senders } from './senders.ts'
import type { Transactions } from './transactions.ts'

export interface Lane {
  readonly isBusy: boolean
  /** Takes batches until none is ready. */
  work(): void
  stop(): void
}

export interface LaneOptions {
  readonly transactions: Transactions
  readonly calls: Calls
  readonly senders: Senders
  /** The next batch; empty where none is to be taken. @param most messages at most. */
  readonly next: (most: number) => readonly Message[]
  /** Messages of a batch were answered, some with a refusal. */
  readonly answered: (messages: readonly Message[], refused: Answers['refused']) => void
  /** Something keeps messages from the database. */
  readonly delayed: (fault: DatabaseError) => void
  /** Nothing is left to do. */
  readonly idle: () => void
}

/** Messages of one transaction at most: a batch of as many takes some milliseconds, where the function does little. */
export const BATCH = 500

/** A function that is slow, or writes, has its batch cut. The next ones grow by one in so many. */
const GROWTH = 8

/** How often a batch is sent again as it is, where its transaction was in the way of another; and one message, before it is refused. */
const ATTEMPTS = 3
const ATTEMPTS_ALONE = 5

/** SQLSTATE of deadlock, serialization failure, and of a statement that was cancelled: it may be the doing of one of the messages. */
const IN_THE_WAY = /^(40|57014)/

interface Batch {
  readonly messages: readonly Message[]
  /** How often it was answered with a fault that may pass. */
  readonly attempts: number
}

export function createLane({ transactions, calls, senders, next, answered, delayed, idle }: LaneOptions): Lane {
  /** Batches to be sent again. The next one is the last. */
  const again: Batch[] = []
  const backoff = createBackoff()
  let most = BATCH
  let isBusy = false
  let isStopped = false

  function settle(messages: readonly Message[], refused: Answers['refused']): void {
    answered(messages, refused)
    senders.settle(messages)
  }

  function take({ messages }: Batch, { done, refused }: Answers): void {
    backoff.reset()
    const rest = messages.slice(done)
    most = rest.length > 0 ? Math.max(1, done) : Math.min(BATCH, most + Math.ceil(most / GROWTH))
    settle(messages.slice(0, done), refused)
    if (rest.length === 0) return
    // Those that are to be sent again come behind these.
    if (again.length > 0) again.push({ messages: rest, attempts: 0 })
    else senders.giveBack(rest)
  }

  function refuse({ messages }: Batch, { code, answer: reason }: DatabaseError): void {
    settle(messages, new Map(messages.map((_, index) => [index, { code, reason }])))
  }

  /** A batch that the database refuses comes again in parts, until the message that is refused stands alone. */
  function split({ messages }: Batch, size: number): void {
    for (let end = messages.length; end > 0; end -= size)
      again.push({ messages: messages.slice(Math.max(0, end - size), end), attempts: 0 })
  }

  async function fail(batch: Batch, fault: DatabaseError): Promise<void> {
    const { messages } = batch
    const isAlone = messages.length === 1
    if (!fault.isPassing) return isAlone ? refuse(batch, fault) : split(batch, Math.ceil(messages.length / 2))
    const attempts = batch.attempts + (fault.answered ? 1 : 0)
    if (isAlone && attempts >= ATTEMPTS_ALONE && IN_THE_WAY.test(fault.code)) return refuse(batch, fault)
    if (!isAlone && attempts >= ATTEMPTS) return split(batch, 1)
    again.push({ messages, attempts })
    delayed(fault)
    await backoff.wait()
  }

  async function send(batch: Batch): Promise<void> {
    let answers: Answers
    try {
      answers = calls.answers(await transactions.run(calls.statements(batch.messages)), batch.messages.length)
    } catch (error) {
      if (!isStopped) await fail(batch, asDatabaseError(error))
      return
    }
    if (!isStopped) take(batch, answers)
  }

  function nextBatch(): Batch | undefined {
    const waiting = again.pop()
    if (waiting) return waiting
    const messages = next(most)
    return messages.length > 0 ? { messages, attempts: 0 } : undefined
  }

  async function run(): Promise<void> {
    isBusy = true
    for (let batch = nextBatch(); batch && !isStopped; batch = nextBatch()) await send(batch)
    isBusy = false
    if (!isStopped) idle()
  }

  return {
    get isBusy() {
      return isBusy
    },
    work() {
      if (!isBusy && !isStopped) void run()
    },
    stop() {
      isStopped = true
      transactions.stop()
      backoff.cut()
    },
  }
}
