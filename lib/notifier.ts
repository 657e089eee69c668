/**
 * Owns the way to PostgreSQL: a bounded queue of messages, sent in order as batches of NOTIFY over one session.
 *
 * The first message leaves at once; what comes while a batch is under way is the next batch. While full ones wait, a second is
 * under way behind the first, so that neither side waits for the other. A batch whose answer was lost is sent again as it was. A
 * message that PostgreSQL refuses is found by halving its batch, so that it takes no other down.
 */
import { type Backoff, createBackoff } from './backoff.ts'
import { type Connection, type Database, DatabaseError } from './database.ts'
import { type Envelope, nextStamp, notificationOf } from './envelope.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { createPatience } from './patience.ts'

export interface Notifier {
  /**
   * Accepts messages, all or none.
   *
   * @param refused is called for each that PostgreSQL refuses.
   * @returns false when the queue has no room for them.
   */
  send(messages: readonly Envelope[], refused: () => void): boolean
  /** Notifies another channel, ahead of the queue. @throws DatabaseError when PostgreSQL refuses it or cannot be reached. */
  probe(channel: string, notification: string): Promise<void>
  /** Holds messages back, but not probes: what goes out while the LISTEN session is away would pass its readers by. */
  hold(): void
  release(): void
  /** Drops the session, which may be dead without a word, and resends what had no answer over a new one. */
  reconnect(): void
  /** Resolves when every accepted message is in the database or refused. */
  drained(): Promise<void>
  /** Ends everything. @returns how many accepted messages did not reach the database. */
  stop(): number
}

interface Message extends Envelope {
  /** By the clock that never goes back, in milliseconds. */
  readonly acceptedAt: number
  readonly refused: () => void
}

/** Messages of one statement, with their texts, which stay the same however often they are sent. */
interface Batch {
  readonly messages: readonly Message[]
  readonly notifications: readonly string[]
}

interface Flight {
  readonly batch: Batch
  /** Why the database did not take it; undefined when it did. */
  readonly answer: Promise<DatabaseError | undefined>
}

interface Probe {
  readonly channel: string
  readonly notification: string
  readonly settled: (error?: DatabaseError) => void
}

/** PostgreSQL sends 1,000 notifications a statement nearly as fast as more, and a refused one is found among them in ten steps. */
const BATCH = 1000

/** What may wait: the messages' lengths, each with an allowance for what it costs beside its text. */
const QUEUE_BYTES = 64 * 1024 * 1024
const MESSAGE_BYTES = 200

/** Stands between the notifications of a batch. JSON text never holds it: RFC 8259 has control characters escaped in strings. */
const SEPARATOR = '\u0001'

/** Batches under way at once. A third would gain nothing: the database works on one while this program reads and writes the other. */
const FLIGHTS = 2

/**
 * Takes a batch that follows another ($3, that one's number) only if that one was taken, so that nothing overtakes: what is set
 * rolls back with a failed statement. Answers with the batch's own number ($4) when it was taken.
 */
const SEND = `select set_config('pgws.batch', case when count(pg_notify($1, notification)) > 0 then $4 else '' end, false) as taken
  from unnest(string_to_array($2, '${SEPARATOR}')) as notification
  where $3 = '' or (select current_setting('pgws.batch', true)) = $3`

/**
 * SQLSTATE classes after which the same statement may succeed: connection, transaction rollback, resources, limits (a full
 * notification queue), object state, operator intervention, system, and a read-only transaction (a primary that became a replica).
 */
const PASSING = /^(08|40|53|54|55|57|58|25006)/

/** SQLSTATE of a notification queue that has no room for a batch; a part of the batch may fit. */
const QUEUE_FULL = '54000'

export interface NotifierOptions {
  readonly database: Database
  readonly channel: string
  /** Milliseconds within which a fault is to be healed; 0 does not hurry. */
  readonly checkInterval: number
  readonly log: Log
  readonly metrics: Metrics
}

export function createNotifier({ database, channel, checkInterval, log, metrics }: NotifierOptions): Notifier {
  let queue: Message[] = []
  let queuedBytes = 0
  /** Batches to be sent again: what had no answer, or the halves of what was refused. The next one is the last. */
  let begun: Batch[] = []
  /** Batches under way, in the order of their answers. */
  let flights: Flight[] = []
  let posted = 0
  let probes: Probe[] = []
  let stamp = 0
  let connection: Connection | undefined
  let isPumping = false
  let isHeld = false
  let isStopped = false
  let isAway = false
  let idle: (() => void)[] = []
  const backoff: Backoff = createBackoff()
  const patience = createPatience(checkInterval)

  const cost = ({ tail }: Envelope): number => tail.length + MESSAGE_BYTES

  const stamped = (message: Message): string => {
    stamp = nextStamp(stamp, Date.now())
    return notificationOf(message, stamp)
  }

  async function connected(): Promise<Connection> {
    if (connection) return connection
    const opened = await database.connect(patience.limit()).catch((error) => {
      const fault = asDatabaseError(error)
      // What refuses a session says nothing about the messages.
      throw new DatabaseError(fault.message, fault.code, false)
    })
    patience.rewarded()
    if (isStopped) opened.close()
    connection = opened
    void opened.closed.then(() => {
      if (connection === opened) connection = undefined
    })
    return opened
  }

  function newBatch(): Batch {
    const messages = queue.splice(0, BATCH)
    queuedBytes -= messages.reduce((sum, message) => sum + cost(message), 0)
    return { messages, notifications: messages.map(stamped) }
  }

  /** Sends a batch behind those under way. */
  function post(batch: Batch): void {
    const after = flights.length === 0 ? '' : String(posted)
    flights.push({ batch, answer: answerTo(batch, after, String(++posted)) })
  }

  async function answerTo({ notifications }: Batch, after: string, number: string): Flight['answer'] {
    try {
      const [row] = await (await connected()).query(SEND, [channel, notifications.join(SEPARATOR), after, number])
      return row?.taken === number ? undefined : new DatabaseError('the batch ahead was not taken', 'BEHIND', false)
    } catch (error) {
      return asDatabaseError(error)
    }
  }

  /** Posts what may go now: something when nothing is under way, then only full batches, and none while an earlier one is sent again. */
  function postAll(): void {
    if (isHeld || isStopped) return
    const again = flights.length === 0 ? begun.pop() : undefined
    if (again) post(again)
    if (begun.length > 0 || again) return
    if (flights.length === 0 && queue.length > 0) post(newBatch())
    while (connection && flights.length < FLIGHTS && queue.length >= BATCH) post(newBatch())
  }

  /** Awaits the answer of the batch that is ahead. */
  async function settle({ batch, answer }: Flight): Promise<void> {
    const fault = await answer
    if (fault === undefined) {
      flights.shift()
      returned()
      return record(batch)
    }
    // Those behind were not taken either, or the session ended and none has an answer.
    for (const behind of flights.splice(0).slice(1).reverse()) {
      await behind.answer
      begun.push(behind.batch)
    }
    const isPassing = !fault.answered || PASSING.test(fault.code)
    if (batch.messages.length > 1 && (!isPassing || fault.code === QUEUE_FULL)) split(batch)
    else if (isPassing) begun.push(batch)
    else refuse(batch, fault)
    if (isPassing) await failed(fault)
  }

  function record({ messages }: Batch): void {
    const now = performance.now()
    metrics.batches.observe(messages.length)
    for (const { acceptedAt } of messages) metrics.toCommit.observe((now - acceptedAt) / 1000)
  }

  function refuse({ messages }: Batch, fault: DatabaseError): void {
    log.warning('message refused by the database', { code: fault.code, reason: fault.message })
    messages[0]?.refused()
  }

  function split({ messages, notifications }: Batch): void {
    const half = messages.length >> 1
    begun.push({ messages: messages.slice(half), notifications: notifications.slice(half) })
    begun.push({ messages: messages.slice(0, half), notifications: notifications.slice(0, half) })
  }

  function returned(): void {
    backoff.reset()
    if (isAway) log.info('sending to the database again', { waiting: waiting() })
    isAway = false
  }

  async function failed(fault: DatabaseError): Promise<void> {
    if (isStopped) return
    if (!isAway) log.warning('cannot send to the database', { reason: fault.message, code: fault.code })
    isAway = true
    for (const { settled } of probes.splice(0)) settled(fault)
    await backoff.wait()
  }

  async function sendProbes(): Promise<void> {
    const sending = probes.splice(0)
    for (const { channel, notification, settled } of sending) {
      try {
        await (await connected()).query('select pg_notify($1, $2)', [channel, notification])
        returned()
        settled()
      } catch (error) {
        settled(asDatabaseError(error))
      }
    }
  }

  async function pump(): Promise<void> {
    isPumping = true
    while (!isStopped) {
      if (probes.length > 0) await sendProbes()
      postAll()
      const [ahead] = flights
      if (ahead) await settle(ahead)
      else if (probes.length === 0) break
    }
    isPumping = false
    if (waiting() === 0) for (const resolve of idle.splice(0)) resolve()
  }

  /** Messages that are accepted and neither in the database nor refused. */
  const waiting = (): number =>
    [...begun, ...flights.map(({ batch }) => batch)].reduce((sum, { messages }) => sum + messages.length, queue.length)

  function wake(): void {
    if (!isPumping && !isStopped) void pump()
  }

  metrics.gauge('pgws_send_queue_messages', 'Accepted messages that wait for the database or its answer.', waiting)
  metrics.gauge(
    'pgws_send_queue_bytes',
    'What the messages that wait for the database take of the buffer, in bytes.',
    () => queuedBytes,
  )

  return {
    send(messages, refused) {
      const total = messages.reduce((sum, message) => sum + cost(message), 0)
      if (isStopped || queuedBytes + total > QUEUE_BYTES) return false
      queuedBytes += total
      const acceptedAt = performance.now()
      for (const { head, tail, bytes } of messages) queue.push({ head, tail, bytes, acceptedAt, refused })
      wake()
      return true
    },
    probe(channel, notification) {
      return new Promise((resolve, reject) => {
        probes.push({ channel, notification, settled: (error) => (error ? reject(error) : resolve()) })
        backoff.cut()
        wake()
      })
    },
    hold() {
      isHeld = true
    },
    release() {
      isHeld = false
      wake()
    },
    reconnect() {
      connection?.close()
      connection = undefined
      backoff.cut()
    },
    drained() {
      if (waiting() === 0) return Promise.resolve()
      return new Promise((resolve) => idle.push(resolve))
    },
    stop() {
      const left = waiting()
      isStopped = true
      queue = []
      begun = []
      flights = []
      for (const { settled } of probes.splice(0)) settled(new DatabaseError('the notifier has stopped', 'STOPPED', false))
      probes = []
      idle = []
      connection?.close()
      backoff.cut()
      return left
    },
  }
}

function asDatabaseError(error: unknown): DatabaseError {
  if (error instanceof DatabaseError) return error
  return new DatabaseError(error instanceof Error ? error.message : String(error), 'UNKNOWN', false)
}
