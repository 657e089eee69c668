/**
 * Owns the way to PostgreSQL: a bounded queue of messages, sent in order as batches of NOTIFY over one session.
 *
 * The first message leaves at once; what comes while a batch is under way is the next batch. A batch whose answer was lost is
 * sent again as it was. A message that PostgreSQL refuses is found by halving its batch, so that it takes no other down.
 */
import { type Backoff, createBackoff } from './backoff.ts'
import { type Connection, type Database, DatabaseError } from './database.ts'
import { type Envelope, nextStamp, notificationOf } from './envelope.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'

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

const SEND = `select count(pg_notify($1, notification)) from unnest(string_to_array($2, '${SEPARATOR}')) as notification`

/**
 * SQLSTATE classes after which the same statement may succeed: connection, transaction rollback, resources, limits (a full
 * notification queue), object state, operator intervention, system, and a read-only transaction (a primary that became a replica).
 */
const PASSING = /^(08|40|53|54|55|57|58|25006)/

/** SQLSTATE of a notification queue that has no room for a batch; a part of the batch may fit. */
const QUEUE_FULL = '54000'

export function createNotifier(database: Database, channel: string, log: Log, metrics: Metrics): Notifier {
  let queue: Message[] = []
  let queuedBytes = 0
  /** Batches that were begun: what had no answer yet, or the halves of what was refused. The next one is the last. */
  let begun: Batch[] = []
  let probes: Probe[] = []
  let stamp = 0
  let connection: Connection | undefined
  let isPumping = false
  let isHeld = false
  let isStopped = false
  let isAway = false
  let idle: (() => void)[] = []
  const backoff: Backoff = createBackoff()

  const cost = ({ tail }: Envelope): number => tail.length + MESSAGE_BYTES

  const stamped = (message: Message): string => {
    stamp = nextStamp(stamp, Date.now())
    return notificationOf(message, stamp)
  }

  async function connected(): Promise<Connection> {
    if (connection) return connection
    const opened = await database.connect().catch((error) => {
      const fault = asDatabaseError(error)
      // What refuses a session says nothing about the messages.
      throw new DatabaseError(fault.message, fault.code, false)
    })
    if (isStopped) opened.close()
    connection = opened
    void opened.closed.then(() => {
      if (connection === opened) connection = undefined
    })
    return opened
  }

  function nextBatch(): Batch | undefined {
    const again = begun.pop()
    if (again) return again
    const messages = queue.splice(0, BATCH)
    if (messages.length === 0) return undefined
    queuedBytes -= messages.reduce((sum, message) => sum + cost(message), 0)
    return { messages, notifications: messages.map(stamped) }
  }

  async function deliver(batch: Batch): Promise<void> {
    begun.push(batch)
    try {
      await (await connected()).query(SEND, [channel, batch.notifications.join(SEPARATOR)])
      begun.pop()
      returned()
      record(batch)
    } catch (error) {
      const fault = asDatabaseError(error)
      const isPassing = !fault.answered || PASSING.test(fault.code)
      if (isPassing && fault.code !== QUEUE_FULL) return await failed(fault)
      begun.pop()
      if (batch.messages.length > 1) split(batch)
      else if (isPassing) begun.push(batch)
      else refuse(batch, fault)
      if (isPassing) await failed(fault)
    }
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
      const batch = isHeld || isStopped ? undefined : nextBatch()
      if (batch) await deliver(batch)
      else if (probes.length === 0) break
    }
    isPumping = false
    if (waiting() === 0) for (const resolve of idle.splice(0)) resolve()
  }

  /** Messages that are accepted and neither in the database nor refused. */
  const waiting = (): number => begun.reduce((sum, { messages }) => sum + messages.length, queue.length)

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
