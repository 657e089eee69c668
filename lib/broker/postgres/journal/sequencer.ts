/**
 * Owns the sequencer of a server: its session, which heals by itself, and the turn from standing by to giving messages their positions.
 * One server at a time does that; the sequencer of every other stands by.
 *
 *     const sequencer = createSequencer({ database, retention: '1 day', checkInterval: 10_000, log, sequenced })
 *     sequencer.start()          // returns at once, and heals by itself
 *     sequencer.rang()           // at each notification on BELL
 *     sequencer.stop()
 */

import { askWithin, isAtWork } from '../../../database/asking.ts'
import type { Connection, Database } from '../../../database/connection.ts'
import { messageOf } from '../../../fault.ts'
import type { Log } from '../../../log.ts'
import { createBackoff } from '../../../waiting.ts'
import { createBells, UNASKED } from './bells.ts'
import { type Ask, createLooks } from './looks.ts'
import { createRotation } from './rotation.ts'
import { createSequencerStates, type SequencerState } from './sequencer-states.ts'
import { sequence } from './sequencing.ts'
import { standBy } from './standing-by.ts'

export interface Sequencer {
  readonly state: SequencerState
  /** Looks so far, and those that found something. */
  readonly looks: number
  readonly batches: number
  start(): void
  /** Publishers rang. */
  rang(): void
  /** Ends the session, and with it the locks. */
  stop(): void
}

export interface SequencerOptions {
  readonly database: Pick<Database, 'connect'>
  /** An interval as PostgreSQL reads it: how long messages are kept. */
  readonly retention: string
  /** Milliseconds within two of which a sequencer that is gone is replaced; 0 for 5 s in all. */
  readonly checkInterval: number
  /** Milliseconds between the looks of a sleeper, whose bell may be lost. Default 1,000. */
  readonly unasked?: number
  readonly log: Log
  /** Told at once up to where a look of this server gave positions. */
  readonly sequenced: (head: number) => void
}

/** Milliseconds that a statement gets, at least. */
const SHORTEST_LIMIT = 5000

/** Begins another epoch where history may have forked. Tells for how many seconds each table is filled. */
export const BEGIN_SESSION = 'select pgws.begin_session($1::text::interval) as seconds'

export function createSequencer(options: SequencerOptions): Sequencer {
  const { database, retention, checkInterval, unasked = UNASKED, log } = options
  const period = checkInterval > 0 ? Math.max(checkInterval / 2, 50) : 1500
  const limit = Math.max(SHORTEST_LIMIT, checkInterval * 2)
  const backoff = createBackoff()
  const states = createSequencerStates(log)
  const bells = createBells(() => states.is('stopped'))
  const looks = createLooks({ states, bells, log, sequenced: options.sequenced })
  let session: Connection | undefined

  /** The first look after a long time without a server, or at a large transaction, takes its time. */
  const askingOver =
    (asked: Connection): Ask =>
    async (statement, parameters) =>
      (await askWithin(limit, asked, statement, parameters, () => isAtWork(database, asked)))[0] ?? {}

  async function run(): Promise<void> {
    while (!states.is('stopped')) {
      await backoff.wait()
      if (states.is('stopped')) return
      try {
        states.enter('connecting')
        session = await database.connect()
        if (!states.is('stopped')) await serve(session)
      } catch (error) {
        if (states.is('stopped')) return
        states.enter('waiting')
        log.warning('the sequencer lost its session', { reason: messageOf(error) })
      } finally {
        session?.close()
        session = undefined
      }
    }
  }

  /** Returns when it is stopped. @throws DatabaseError when the session is lost. */
  async function serve(opened: Connection): Promise<void> {
    const ask = askingOver(opened)
    void opened.closed.then(bells.endWait)
    const rotate = createRotation(await begin(ask))
    if (states.is('stopped')) return
    const look = () => looks.look(opened.server, ask)
    await standBy({ states, bells, ask, look, period, log })
    if (!states.is('stopped')) await sequence({ states, bells, ask, look, rotate, unasked, log })
  }

  /** @returns for how many seconds each table is filled. */
  async function begin(ask: Ask): Promise<number> {
    // A position that a crash takes back would be given twice.
    await ask("select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'")
    const { seconds } = await ask(BEGIN_SESSION, [retention])
    backoff.reset()
    return Number(seconds)
  }

  return {
    get state() {
      return states.current
    },
    get looks() {
      return looks.count
    },
    get batches() {
      return looks.batches
    },
    start() {
      // The server may have begun to stop while the journal was made ready.
      if (states.is('stopped')) return
      states.enter('connecting')
      void run()
    },
    rang() {
      if (!states.is('standing by') && !states.is('standing in')) bells.rang()
    },
    stop() {
      states.enter('stopped')
      session?.close()
      backoff.cut()
      bells.endWait()
    },
  }
}
