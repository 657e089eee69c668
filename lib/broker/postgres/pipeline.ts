/**
 * Owns batches of messages on their way to PostgreSQL, each one statement: in which order they go, what becomes of one that had no answer,
 * and which of its messages PostgreSQL refuses.
 *
 * Full batches are pipelined: the next goes before the answer to the last, so that neither side waits. A batch whose answer was lost is
 * sent again unchanged. A message that PostgreSQL refuses is found by bisecting its batch, so that the others still arrive.
 */

import { type Envelope, nextStamp, notificationOf } from '../../channels/envelope.ts'
import { asDatabaseError, type Connection, DatabaseError } from '../../database/connection.ts'
import type { Carrier } from './carriers.ts'

export interface Pipeline<M extends Envelope> {
  /** Messages neither in the database nor refused. */
  readonly messages: number
  /** Whether the next batch may go. @param isFull whether it is as large as it may be; then it may go behind another. */
  takes(isFull: boolean): boolean
  /** Sends a batch of at most `BATCH` messages behind those under way. */
  post(messages: readonly M[], carrier: Carrier): void
  /** Sends again, before anything new, what is to be sent again. */
  resume(): void
  /** Awaits the answer to the batch that is ahead; undefined when none is under way. */
  settle(): Promise<Settled<M>> | undefined
}

/** What became of a batch. */
export type Settled<M> =
  | { readonly kind: 'taken'; readonly messages: readonly M[] }
  | { readonly kind: 'refused'; readonly message: M; readonly fault: DatabaseError }
  /** PostgreSQL refuses one of its messages, and it is to be sent again in halves. */
  | { readonly kind: 'halved' }
  /** It is to be sent again after a while: nothing is wrong with its messages. */
  | { readonly kind: 'delayed'; readonly fault: DatabaseError }

/**
 * Messages of one statement at most. PostgreSQL takes 1,000 at once a little faster, but begins later: 500 go round a tenth faster.
 * A refused one is found among them in nine steps.
 */
export const BATCH = 500

/** Batches under way at once: two keep a database near by and this program both at work, and as many again one that is far. */
const MOST_UNDER_WAY = 4

/** SQLSTATE of a notification queue that has no room for a batch; a part of the batch may fit. */
const QUEUE_FULL = '54000'

/** Messages of one statement, with their numbers and texts, which stay the same however often they are sent. */
interface Batch<M> {
  readonly carrier: Carrier
  /** The number of the first message. */
  readonly first: number
  readonly messages: readonly M[]
  readonly texts: readonly string[]
}

interface Sent<M> {
  readonly batch: Batch<M>
  /** Why the database did not take it; undefined when it did. */
  readonly answer: Promise<DatabaseError | undefined>
}

/** @param connected the session to send over, which may have to be set up first. */
export function createPipeline<M extends Envelope>(connected: () => Promise<Connection>): Pipeline<M> {
  /** Batches without an answer, in the order in which they were sent. */
  const sent: Sent<M>[] = []
  /** Batches to be sent again. The next one is the last. */
  const again: Batch<M>[] = []
  let posted = 0
  let numbered = 0
  let stamp = 0

  function stamped(messages: readonly M[]): readonly string[] {
    const now = Date.now()
    return messages.map((message) => {
      stamp = nextStamp(stamp, now)
      return notificationOf(message, stamp)
    })
  }

  function send(batch: Batch<M>): void {
    const after = sent.length === 0 ? '' : String(posted)
    sent.push({ batch, answer: answerTo(batch, after, String(++posted)) })
  }

  async function answerTo({ carrier, first, messages, texts }: Batch<M>, after: string, number: string): Sent<M>['answer'] {
    try {
      const session = await connected()
      const [row] = await session.query(carrier.statement, [after, number, ...carrier.parameters(messages, texts, first)])
      return row?.taken === number ? undefined : new DatabaseError('the batch ahead was not taken', 'BEHIND', false)
    } catch (error) {
      return asDatabaseError(error)
    }
  }

  async function settle({ batch, answer }: Sent<M>): Promise<Settled<M>> {
    const fault = await answer
    const { messages } = batch
    if (fault === undefined) {
      sent.shift()
      return { kind: 'taken', messages }
    }
    // Those behind were not taken either, or the session ended and none has an answer.
    for (const behind of sent.splice(0).slice(1).reverse()) {
      await behind.answer
      again.push(behind.batch)
    }
    const [first] = messages
    const isPassing = fault.isPassing
    if (messages.length > 1 && (!isPassing || fault.code === QUEUE_FULL)) split(batch)
    else if (isPassing) again.push(batch)
    else if (first) return { kind: 'refused', message: first, fault }
    return isPassing ? { kind: 'delayed', fault } : { kind: 'halved' }
  }

  function split({ carrier, first, messages, texts }: Batch<M>): void {
    const half = messages.length >> 1
    again.push({ carrier, first: first + half, messages: messages.slice(half), texts: texts.slice(half) })
    again.push({ carrier, first, messages: messages.slice(0, half), texts: texts.slice(0, half) })
  }

  return {
    get messages() {
      return [...again, ...sent.map(({ batch }) => batch)].reduce((sum, { messages }) => sum + messages.length, 0)
    },
    takes: (isFull) => again.length === 0 && (sent.length === 0 || (isFull && sent.length < MOST_UNDER_WAY)),
    post(messages, carrier) {
      send({ carrier, first: numbered + 1, messages, texts: stamped(messages) })
      numbered += messages.length
    },
    resume() {
      const next = sent.length === 0 ? again.pop() : undefined
      if (next) send(next)
    },
    settle() {
      const [ahead] = sent
      return ahead && settle(ahead)
    },
  }
}
