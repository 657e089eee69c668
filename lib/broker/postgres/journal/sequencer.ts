/**
 * Owns the loop of looks, which gives messages their positions. One server at a time does that; each server has a sequencer that
 * stands by.
 *
 *     connecting ──▶ standing by ──lock──▶ awake ──quiet──▶ half asleep ──▶ asleep ──bells──▶ awake …
 *                         └──nobody looks──▶ standing in          any ──lost──▶ waiting ──▶ connecting …
 *
 * Awake, it looks of its own accord, and holds the lock that keeps publishers from ringing. To fall asleep it gives that back and looks
 * once more: who had begun to publish before did not ring, so it stays half awake until all transactions of that moment have ended.
 * Whoever looks without being the one does no harm: two batches that follow the same one are duplicates in the database.
 *
 *     const sequencer = createSequencer({ database, retention: '1 day', checkInterval: 10_000, log })
 *     sequencer.start()          // returns at once, and heals by itself
 *     sequencer.rang()           // at each notification on BELL
 *     sequencer.stop()
 */
import { asDatabaseError, type Connection, type Database, type Row } from '../../../database/connection.ts'
import type { Log } from '../../../log.ts'
import { createBackoff, createPause } from '../../../waiting.ts'
import { askWithin, isAtWork } from './asking.ts'

/** The database channel on which publishers ring while nobody looks. */
export const BELL = 'pgws_published'

export type State =
  | 'stopped'
  | 'connecting'
  | 'waiting'
  | 'standing by'
  | 'standing in'
  | 'awake'
  | 'half asleep'
  | 'asleep'
  | 'pooled'

export interface Sequencer {
  readonly state: State
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

interface Look {
  readonly head: number
  readonly fresh: number
  /** The oldest transaction id that was under way. */
  readonly oldest: bigint
}

/** Milliseconds between looks of one who is awake, and without a find after which it falls asleep. */
const EAGER = 4
const QUIET = 50

/** Milliseconds between the looks of one who is half asleep, or stands in for another who may come back. */
const DROWSY = 25

/** Milliseconds between looks for which nobody rang. */
export const UNASKED = 1000

/** Two bells within so many milliseconds wake it up. For one now and then, a look is enough. */
const BUSY = 100

/** Milliseconds that a statement gets, at least. */
const SHORTEST_LIMIT = 5000

/** SQLSTATE unique_violation: another look followed the same batch. */
const OVERTAKEN = '23505'

/** Begins another epoch where history may have forked. Tells for how many seconds each table is filled. */
export const BEGIN_SESSION = 'select pgws.begin_session($1::text::interval) as seconds'

const LOOK = 'select head::float8 as head, fresh, oldest::text as oldest, backend::text as backend from pgws.look()'

export function createSequencer(options: SequencerOptions): Sequencer {
  const { database, retention, checkInterval, unasked = UNASKED, log } = options
  const period = checkInterval > 0 ? Math.max(checkInterval / 2, 50) : 1500
  const limit = Math.max(SHORTEST_LIMIT, checkInterval * 2)
  const backoff = createBackoff()
  const pause = createPause()
  let state: State = 'stopped'
  let session: Connection | undefined
  let looks = 0
  let batches = 0
  /** When the last bells rang, and when the last look began, by the monotonic clock. */
  let rangAt = Number.NEGATIVE_INFINITY
  let rangBefore = Number.NEGATIVE_INFINITY
  let lookedAt = 0

  const is = (wanted: State): boolean => state === wanted
  const hasRung = (): boolean => rangAt >= lookedAt

  function enter(next: State): void {
    if (state !== next) log.debug('sequencer', { state: next })
    state = next
  }

  /** Waits so many milliseconds, or until a bell rings that no look has followed. */
  const nap = (milliseconds: number): Promise<void> => (hasRung() || is('stopped') ? Promise.resolve() : pause.wait(milliseconds))

  /** The first look after a long time without a server, or at a large transaction, takes its time. */
  async function ask(statement: string, parameters?: readonly string[]): Promise<Row> {
    const asked = session
    const isBusy = async (): Promise<boolean> => asked !== undefined && isAtWork(database, asked)
    return (await askWithin(limit, asked, statement, parameters, isBusy))[0] ?? {}
  }

  /** Undefined where another look was ahead. */
  async function look(): Promise<Look | undefined> {
    lookedAt = performance.now()
    looks++
    try {
      const row = await ask(LOOK)
      if (session && String(row.backend) !== session.server.backend.pid && !is('pooled')) {
        enter('pooled')
        log.warning('the journal is read through a pooler: messages may come a second late', { server: session.server.place })
      }
      const found = { head: Number(row.head), fresh: Number(row.fresh), oldest: BigInt(String(row.oldest)) }
      if (found.fresh > 0) {
        batches++
        options.sequenced(found.head)
      }
      return found
    } catch (error) {
      if (asDatabaseError(error).code !== OVERTAKEN) throw error
      return undefined
    }
  }

  async function connect(): Promise<number> {
    enter('connecting')
    const opened = await database.connect()
    if (is('stopped')) {
      opened.close()
      return 0
    }
    session = opened
    void opened.closed.then(pause.end)
    // A position that a crash takes back would be given twice; and a table is emptied only by who sees what was committed meanwhile.
    await ask("select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'")
    await ask("select set_config('default_transaction_isolation', 'read committed', false)")
    const row = await ask(BEGIN_SESSION, [retention])
    backoff.reset()
    return Number(row.seconds)
  }

  async function run(): Promise<void> {
    while (!is('stopped')) {
      await backoff.wait()
      if (is('stopped')) return
      try {
        const seconds = await connect()
        if (!is('stopped')) await serve(createRotation(seconds))
      } catch (error) {
        if (is('stopped')) return
        enter('waiting')
        log.warning('the sequencer lost its session', { reason: error instanceof Error ? error.message : String(error) })
      } finally {
        session?.close()
        session = undefined
      }
    }
  }

  async function serve(rotate: Rotate): Promise<void> {
    await standBy()
    if (is('stopped')) return
    // Publishers whose transactions may be prepared do not ring.
    const { prepares } = await ask("select current_setting('max_prepared_transactions') <> '0' as prepares")
    const sleep = prepares === true ? DROWSY : unasked
    log.info('this server sequences the journal')
    enter('awake')
    let isBellHeld = false
    let foundAt = performance.now()
    /** Who has a smaller transaction id and is still under way did not ring. */
    let bound = 0n
    while (!is('stopped')) {
      if (is('awake') && !isBellHeld) isBellHeld = (await ask('select pgws.wake() as woke')).woke === true
      const found = await look()
      if (found === undefined || found.fresh > 0) foundAt = performance.now()
      await rotate(ask)
      if (is('pooled')) {
        await ask('select pgws.release()')
        await nap(unasked)
      } else if (is('awake')) {
        if (performance.now() - foundAt < QUIET) {
          await nap(Math.max(0, lookedAt + EAGER - performance.now()))
          continue
        }
        bound = BigInt(String((await ask('select pgws.fall_asleep()::text as bound')).bound))
        isBellHeld = false
        enter('half asleep')
      } else {
        if (is('half asleep') && found !== undefined && found.oldest > bound) enter('asleep')
        await nap(is('asleep') ? sleep : DROWSY)
        if (hasRung() && rangAt - rangBefore < BUSY) {
          foundAt = performance.now()
          enter('awake')
        }
      }
    }
  }

  /** Returns once this is the sequencer. */
  async function standBy(): Promise<void> {
    enter('standing by')
    // Bells are for whoever looks.
    rangAt = Number.NEGATIVE_INFINITY
    /** Where the journal stood at the last check, if a message had no position then. */
    let behindAt: number | undefined
    while (is('standing by')) {
      const found = await ask(
        'select pgws.become_sequencer() as become, pgws.is_behind() as behind, head::float8 as head from pgws.stand()',
      )
      if (found.become === true) return
      const head = Number(found.head)
      if (found.behind === true && behindAt === head) {
        const { ended } = await ask('select pgws.replace_sequencer() as ended')
        if (ended !== null) {
          log.warning('the sequencer does not look any more, and is replaced', { position: head })
          if (ended === true) await nap(DROWSY)
          else await standIn(head)
          behindAt = undefined
          continue
        }
      }
      behindAt = found.behind === true ? head : undefined
      await nap(period)
    }
  }

  /** Looks in place of one whose session may not be ended, until that looks again or has gone. */
  async function standIn(from: number): Promise<void> {
    enter('standing in')
    let head = from
    let checkedAt = performance.now()
    while (is('standing in')) {
      const found = await look()
      if (found === undefined || found.head - found.fresh > head) break
      head = found.head
      if (performance.now() - checkedAt >= period) {
        checkedAt = performance.now()
        if ((await ask('select pgws.become_sequencer() as become')).become === true) break
      }
      await nap(DROWSY)
    }
    if (is('standing in')) enter('standing by')
  }

  return {
    get state() {
      return state
    },
    get looks() {
      return looks
    },
    get batches() {
      return batches
    },
    start() {
      enter('connecting')
      void run()
    },
    rang() {
      if (is('standing by') || is('standing in')) return
      rangBefore = rangAt
      rangAt = performance.now()
      pause.end()
    },
    stop() {
      enter('stopped')
      session?.close()
      backoff.cut()
      pause.end()
    },
  }
}

type Rotate = (ask: (statement: string) => Promise<unknown>) => Promise<void>

/** Empties the tables whose time is over, some times in the time for which one is filled. */
function createRotation(seconds: number): Rotate {
  const every = Math.min(Math.max((seconds * 1000) / 20, 250), 10_000)
  let rotatedAt = performance.now()
  return async (ask) => {
    if (performance.now() - rotatedAt < every) return
    rotatedAt = performance.now()
    try {
      await ask('select pgws.rotate()')
    } catch (error) {
      if (asDatabaseError(error).code !== OVERTAKEN) throw error
    }
  }
}
