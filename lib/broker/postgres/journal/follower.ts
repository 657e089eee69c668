/**
 * Owns the session over which a server reads the journal, and when it reads: at each bell of the sequencer, and every second.
 *
 *     connecting ──▶ reading ──lost──▶ waiting ──▶ connecting …
 *
 * Nothing is missed while the database is away: reading goes on where it was.
 */

import { askWithin } from '../../../database/asking.ts'
import { asDatabaseError, type Connection, type Database, DatabaseError, type Row } from '../../../database/connection.ts'
import { createBackoff, createPause } from '../../../waiting.ts'
import { createArrivals } from './arrivals.ts'
import { UNASKED } from './bells.ts'
import { createPages, type Pages, type PagesOptions } from './pages.ts'
import { positionOf } from './positions.ts'

/** The database channel on which the sequencer rings for every server. */
export const SEQUENCED = 'pgws_sequenced'

export interface Follower {
  /** Whether the journal is read, as far as is known. */
  readonly isReading: boolean
  readonly pages: Pick<Pages, 'head' | 'kept' | 'epochs' | 'recent'>
  /**
   * Connects, and reads until it is stopped. What was published before is not received.
   *
   * @returns once the head is known. @throws DatabaseError where the first attempt fails.
   */
  start(): Promise<void>
  /** Settled when the head is at a number, or beyond. @throws DatabaseError when the journal cannot be read before. */
  reached(number: number): Promise<void>
  /** The sequencer rang: the journal reaches up to this number. */
  rang(number: number): void
  stop(): void
}

export interface FollowerOptions extends Pick<PagesOptions, 'cacheBytes' | 'log' | 'receive' | 'lost'> {
  readonly database: Pick<Database, 'connect'>
  /** Milliseconds for an answer of the database at least; 0 for 10 s. */
  readonly checkInterval: number
  /** Milliseconds between reads for which nobody rang. Default 1,000. */
  readonly unasked?: number
}

type State = 'stopped' | 'connecting' | 'reading' | 'waiting'

const SHORTEST_LIMIT = 5000
const LONGEST_LIMIT = 10_000

export function createFollower(options: FollowerOptions): Follower {
  const { database, checkInterval, unasked = UNASKED, log } = options
  const limit = checkInterval > 0 ? Math.max(checkInterval * 2, SHORTEST_LIMIT) : LONGEST_LIMIT
  const backoff = createBackoff()
  const pause = createPause()
  const arrivals = createArrivals()
  const pages = createPages({ ...options, ask, isStopped: () => is('stopped'), arrived: arrivals.arrived })
  let state: State = 'stopped'
  let session: Connection | undefined
  let rangAt = 0
  let readAt = 0

  const is = (wanted: State): boolean => state === wanted

  function ask(statement: string, parameters?: readonly string[]): Promise<readonly Row[]> {
    return askWithin(limit, session, statement, parameters)
  }

  function read(): Promise<boolean> {
    readAt = performance.now()
    return pages.read()
  }

  async function connect(): Promise<void> {
    state = 'connecting'
    const opened = await database.connect()
    if (!is('connecting')) return opened.close()
    session = opened
    void opened.closed.then(pause.end)
    await pages.orient()
    while (is('connecting') && (await read()));
    if (!is('connecting')) return
    state = 'reading'
    backoff.reset()
    log.info('reading the journal', { position: positionOf(pages.epochs, pages.head) })
  }

  async function follow(): Promise<void> {
    while (is('reading')) {
      await rung()
      while (is('reading') && (await read()));
    }
  }

  /** Waits for a bell that no read has followed, or until it is time to read unasked. */
  const rung = (): Promise<void> =>
    rangAt >= readAt || arrivals.length > 0 || is('stopped') ? Promise.resolve() : pause.wait(unasked)

  async function run(): Promise<void> {
    for (;;) {
      try {
        await follow()
      } catch (error) {
        if (is('stopped')) return
        log.warning('the journal cannot be read', { reason: asDatabaseError(error).message })
      }
      if (is('stopped')) return
      await reconnect()
    }
  }

  /** Returns once the journal is read again, or nobody wants that any more. */
  async function reconnect(): Promise<void> {
    drop()
    while (is('waiting')) {
      await backoff.wait()
      if (!is('waiting')) return
      try {
        await connect()
      } catch (error) {
        if (is('stopped')) return
        drop()
        log.debug('the journal cannot be read yet', { reason: asDatabaseError(error).message })
      }
    }
  }

  function drop(): void {
    state = 'waiting'
    session?.close()
    session = undefined
    arrivals.fail(cannotRead())
  }

  return {
    get isReading() {
      return is('reading')
    },
    pages,
    async start() {
      try {
        await connect()
      } catch (error) {
        drop()
        throw error
      }
      void run()
    },
    reached(number) {
      if (pages.head >= number) return Promise.resolve()
      if (is('stopped')) return Promise.reject(cannotRead())
      const arrived = arrivals.wait(number)
      pause.end()
      return arrived
    },
    rang(number) {
      if (number <= pages.head) return
      rangAt = performance.now()
      pause.end()
    },
    stop() {
      drop()
      state = 'stopped'
      backoff.cut()
      pause.end()
    },
  }
}

const cannotRead = (): DatabaseError => new DatabaseError('the journal cannot be read', 'CONNECTION_CLOSED', false)
