/** Owns a database that is none: a test answers, refuses or leaves open what its sessions are asked, and ends them. */

import { jest } from 'bun:test'
import type { Envelope } from '../../lib/channels/envelope.ts'
import { type Database, DatabaseError, type ListeningConnection, type Row } from '../../lib/database/connection.ts'

/** What a session is asked, by the part of its statement that no other has. */
const QUERIES = {
  batch: 'pgws.batch',
  check: 'pg_notify($1, $2)',
  look: 'pg_is_in_recovery()',
  usage: 'pg_notification_queue_usage()',
  terminate: 'pg_terminate_backend',
  activity: 'wait_event',
} as const

type Kind = keyof typeof QUERIES | 'listen' | 'tryListen' | 'unlisten'

/** Stays open until it is answered or refused, or the session ends. */
export interface Asked {
  readonly kind: Kind
  /** The parameters of a query, the channels of the rest. */
  readonly values: readonly string[]
  readonly isOpen: boolean
  answer(...rows: readonly Row[]): void
  /** @param code SQLSTATE. */
  refuse(code: string): void
}

export interface FakeSession extends ListeningConnection {
  readonly isOpen: boolean
  /** All that it was asked, in order. */
  readonly asked: readonly Asked[]
  /** Delivers a notification where the session listens to its channel. */
  notify(channel: string, notification: string): void
}

/** Answers what a session is asked, or leaves it open. */
type Answers = (asked: Asked, session: FakeSession) => void

export interface FakeDatabase extends Database {
  /** All that were made, in order. */
  readonly sessions: readonly FakeSession[]
  /** What a PostgreSQL committed that is well. */
  readonly committed: readonly string[]
  /** As a PostgreSQL that is well, at first. */
  answers: Answers
  /** As a PostgreSQL that is well. */
  readonly well: Answers
  /** Why no session can be made; undefined where they can be. */
  fault: DatabaseError | undefined
  /** What was asked of all sessions together, of these kinds. */
  asked(...kinds: readonly Kind[]): readonly Asked[]
}

const { setImmediate } = globalThis

/** Resolves when everything has happened that waits for no timer and for no answer of the test. */
export const quiet = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Lets the time of fake timers pass in small steps, with what happens in each. */
export async function pass(time: number): Promise<void> {
  for (let passed = 0; passed < time; passed += 10) {
    await quiet()
    jest.advanceTimersByTime(10)
  }
  await quiet()
}

/** @param refuses the SQLSTATE with which a PostgreSQL refuses a notification; undefined where it takes it. */
export function createFakeDatabase(refuses: (notification: string) => string | undefined = () => undefined): FakeDatabase {
  const sessions: FakeSession[] = []
  const committed: string[] = []
  /** What each session's last batch set. */
  const taken = new Map<FakeSession, string>()

  function takeBatch(asked: Asked, session: FakeSession): void {
    const [after = '', number = '', channel = '', joined = ''] = asked.values
    if (after !== '' && taken.get(session) !== after) {
      taken.set(session, '')
      return asked.answer({ taken: '' })
    }
    const notifications = joined.split('\u0001')
    const refusal = notifications.map(refuses).find((code) => code !== undefined)
    if (refusal !== undefined) return asked.refuse(refusal)
    taken.set(session, number)
    committed.push(...notifications)
    asked.answer({ taken: number })
    for (const notification of notifications) notifyAll(channel, notification)
  }

  function notifyAll(channel: string, notification: string): void {
    for (const session of sessions) session.notify(channel, notification)
  }

  function well(asked: Asked, session: FakeSession): void {
    const [first = '', second = ''] = asked.values
    if (asked.kind === 'batch') return takeBatch(asked, session)
    if (asked.kind === 'look') return asked.answer({ replica: false, usage: 0.25, listens: true })
    if (asked.kind === 'activity') return asked.answer({ state: 'idle', kind: 'Client', event: 'ClientRead' })
    if (asked.kind === 'terminate') sessions.find(({ server }) => server.backend.pid === first)?.close()
    asked.answer()
    if (asked.kind === 'check') notifyAll(first, second)
  }

  async function connect(): Promise<FakeSession> {
    await undefined
    if (database.fault) throw database.fault
    const session = createFakeSession(String(sessions.length + 1), (asked) => database.answers(asked, session))
    sessions.push(session)
    return session
  }

  const database: FakeDatabase = {
    sessions,
    committed,
    answers: well,
    well,
    fault: undefined,
    asked: (...kinds) => sessions.flatMap(({ asked }) => asked).filter(({ kind }) => kinds.includes(kind)),
    connect,
    async connectListening(channel, notified) {
      const session = await connect()
      await session.listen([channel], (_, notification) => notified(notification))
      return session
    },
  }
  return database
}

function createFakeSession(pid: string, answers: (asked: Asked) => void): FakeSession {
  const asked: Asked[] = []
  const waiting = new Set<(error: DatabaseError) => void>()
  const channels = new Map<string, (channel: string, notification: string) => void>()
  const { promise: closed, resolve: ended } = Promise.withResolvers<void>()
  let isOpen = true

  function ask(kind: Kind, values: readonly string[]): Promise<readonly Row[]> {
    if (!isOpen) return Promise.reject(sessionEnded())
    const { promise, resolve, reject } = Promise.withResolvers<readonly Row[]>()
    const one: Asked = {
      kind,
      values,
      get isOpen() {
        return waiting.has(reject)
      },
      answer: (...rows) => resolve(rows),
      refuse: (code) => reject(new DatabaseError(`refused with ${code}`, code, true)),
    }
    waiting.add(reject)
    asked.push(one)
    // An answer comes in a later tick than what it answers.
    queueMicrotask(() => answers(one))
    return promise.finally(() => waiting.delete(reject))
  }

  return {
    server: {
      place: 'localhost:5432',
      version: '18',
      encrypted: false,
      backend: { pid, startedAt: `start of ${pid}` },
    },
    closed,
    asked,
    get isOpen() {
      return isOpen
    },
    query: (statement, parameters = []) => ask(kindOf(statement), parameters),
    async listen(names, notified) {
      const own = new Map(names.map((name) => [name, (channel: string, text: string) => notified(channel, text)]))
      for (const [name, deliver] of own) channels.set(name, deliver)
      try {
        await ask('listen', names)
      } catch (error) {
        for (const [name, deliver] of own) if (channels.get(name) === deliver) channels.delete(name)
        throw error
      }
    },
    tryListen: async (names) => void (await ask('tryListen', names)),
    unlisten: async (name) => {
      channels.delete(name)
      await ask('unlisten', [name])
    },
    close(reason = sessionEnded()) {
      isOpen = false
      for (const reject of waiting) reject(reason)
      ended()
    },
    notify: (channel, notification) => {
      if (isOpen) channels.get(channel)?.(channel, notification)
    },
  }
}

const sessionEnded = (): DatabaseError => new DatabaseError('the session has ended', 'CONNECTION_CLOSED', false)

function kindOf(statement: string): Kind {
  // The keys of a constant are those of its type.
  const kinds = Object.keys(QUERIES) as (keyof typeof QUERIES)[]
  const kind = kinds.find((name) => statement.includes(QUERIES[name]))
  if (kind === undefined) throw new Error(`no session is asked this: ${statement}`)
  return kind
}

/** Messages that a batch names with `namesIn`. */
export const messagesOf = (...names: readonly (string | number)[]): readonly Envelope[] =>
  names.map((name) => ({ channel: 'chat', head: '', tail: `:${name}`, bytes: 0 }))

/** Numbers from 0 up. */
export const count = (length: number): readonly number[] => Array.from({ length }, (_, index) => index)

/** The messages of a batch, in its order. */
export const namesIn = (batch: Asked | undefined): readonly string[] =>
  (batch?.values[3] ?? '').split('\u0001').map((text) => text.slice(text.indexOf(':') + 1))
