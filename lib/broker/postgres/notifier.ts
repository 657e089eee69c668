/**
 * Owns the way to PostgreSQL: a bounded queue of messages, which go in order over one session, and probes, which go ahead of them.
 *
 * The first message leaves at once; what comes while a batch is under way is the next batch.
 */

import type { Envelope } from '../../channels/envelope.ts'
import { asDatabaseError, type Backend, type Connection, type Database, DatabaseError } from '../../database/connection.ts'
import type { Log } from '../../log.ts'
import type { Metrics } from '../../metrics.ts'
import { type Backoff, createBackoff } from '../../waiting.ts'
import { BATCH, createFlights, type Settled } from './pipeline.ts'

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
  /** The process that takes what is sent; undefined while there is no session. */
  readonly backend: Backend | undefined
  /** When PostgreSQL last answered anything that was sent, in milliseconds of the monotonic clock. */
  readonly answeredAt: number
  /** Drops the session, which may be dead without a word, and resends what had no answer over a new one. */
  reconnect(): void
  /** Resolves when every accepted message is in the database or refused. */
  drained(): Promise<void>
  /** Ends everything. @returns how many accepted messages did not reach the database. */
  stop(): number
}

/** What may wait: the messages' lengths, each with an allowance for what it costs beside its text. */
const QUEUE_BYTES = 64 * 1024 * 1024
const MESSAGE_BYTES = 200

/** The row names the same process, and not another that has got its number. Given as text, the time keeps its microseconds. */
const END_BACKEND =
  'select pg_terminate_backend(pid) from pg_stat_activity where pid = $1::int and backend_start = $2::text::timestamptz'

interface Message extends Envelope {
  /** By the clock that never goes back, in milliseconds. */
  readonly acceptedAt: number
  readonly refused: () => void
}

interface Probe {
  readonly channel: string
  readonly notification: string
  readonly settled: (error?: DatabaseError) => void
}

export interface NotifierOptions {
  readonly database: Database
  readonly channel: string
  readonly log: Log
  readonly metrics: Metrics
}

export function createNotifier({ database, channel, log, metrics }: NotifierOptions): Notifier {
  let queue: Message[] = []
  let queuedBytes = 0
  let probes: Probe[] = []
  let connection: Connection | undefined
  let isPumping = false
  let isHeld = false
  let isStopped = false
  let isAway = false
  let idle: (() => void)[] = []
  let answeredAt = Number.NEGATIVE_INFINITY
  /** The process of a session that was dropped without an answer. It may hold on to its statement for as long as it likes. */
  let abandoned: Backend | undefined
  const backoff: Backoff = createBackoff()
  const flights = createFlights<Message>(channel, connected)

  const cost = ({ tail }: Envelope): number => tail.length + MESSAGE_BYTES

  async function connected(): Promise<Connection> {
    if (connection) return connection
    const opened = await open().catch((error) => {
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

  /** A new session, which ends the process that a dropped one left behind: there are never more than two, and none keeps a lock. */
  async function open(): Promise<Connection> {
    const opened = await database.connect()
    if (!abandoned) return opened
    try {
      await opened.query(END_BACKEND, [abandoned.pid, abandoned.startedAt])
      abandoned = undefined
      return opened
    } catch (error) {
      opened.close()
      throw error
    }
  }

  function takeBatch(): readonly Message[] {
    const messages = queue.splice(0, BATCH)
    queuedBytes -= messages.reduce((sum, message) => sum + cost(message), 0)
    return messages
  }

  function postAll(): void {
    if (isHeld || isStopped) return
    flights.resume()
    while (queue.length > 0 && flights.takes(connection !== undefined && queue.length >= BATCH)) flights.post(takeBatch())
  }

  async function settle({ taken, refused, fault, isPassing }: Settled<Message>): Promise<void> {
    if (taken) {
      returned()
      record(taken)
    }
    if (refused && fault) {
      log.warning('message refused by the database', { code: fault.code, reason: fault.message })
      refused.refused()
    }
    if (fault && isPassing) await failed(fault)
  }

  function record(messages: readonly Message[]): void {
    const now = performance.now()
    metrics.batches.observe(messages.length)
    for (const { acceptedAt } of messages) metrics.toCommit.observe((now - acceptedAt) / 1000)
  }

  function returned(): void {
    answeredAt = performance.now()
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
      const ahead = flights.settle()
      if (ahead !== undefined) await settle(await ahead)
      else if (probes.length === 0) break
    }
    isPumping = false
    if (waiting() === 0) for (const resolve of idle.splice(0)) resolve()
  }

  /** Messages that are accepted and neither in the database nor refused. */
  const waiting = (): number => queue.length + flights.messages

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
    get backend() {
      return connection?.server.backend
    },
    get answeredAt() {
      return answeredAt
    },
    reconnect() {
      abandoned = connection?.server.backend ?? abandoned
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
      for (const { settled } of probes.splice(0)) settled(new DatabaseError('the notifier has stopped', 'STOPPED', false))
      probes = []
      idle = []
      connection?.close()
      backoff.cut()
      return left
    },
  }
}
