/**
 * Owns the journal as the rest of the server sees it: what is new comes by a callback, what lies behind a position is asked for, and
 * both meet without a gap or a double.
 *
 *     const journal = createJournal({ database, retention, cacheBytes, checkInterval, log, receive, lost })
 *     await journal.start()                    // throws what is wrong; heals by itself from then on
 *     journal.rang(channel, notification)      // at each notification on the two channels of BELLS
 *     journal.stop()
 *
 * A reader that resumes asks `after` for one page behind another, writes it, and goes on from `upTo`. A page that is at the `end` is
 * given within the tick of the call: a reader that joins those who read live in this same tick has all up to `head`, and gets what
 * follows.
 */
import type { History, Page } from '../../../channels/broker.ts'
import { askWithin } from '../../../database/asking.ts'
import { asDatabaseError, type Connection, type Database, DatabaseError, type Row } from '../../../database/connection.ts'
import type { Log } from '../../../log.ts'
import { BELL } from './bells.ts'
import { createFollower, SEQUENCED } from './follower.ts'
import { type Holdings, mustBeUsable, readHoldings } from './inspection.ts'
import { entryOf, GONE } from './pages.ts'
import { numberOf, positionOf } from './positions.ts'
import type { Entry } from './recent.ts'
import { BEGIN_SESSION, createSequencer } from './sequencer.ts'
import type { SequencerState } from './sequencer-states.ts'

export type { Entry }

/** The database channels to LISTEN on. */
export const BELLS: readonly string[] = [BELL, SEQUENCED]

export interface Journal {
  readonly history: History
  /** Whether the journal can be read. */
  readonly isReading: boolean
  readonly figures: Figures
  /** What the database holds, as it is now. @throws DatabaseError */
  holdings(): Promise<Holdings>
  start(): Promise<void>
  rang(channel: string, notification: string): void
  stop(): void
}

export interface Figures {
  readonly sequencer: SequencerState
  readonly looks: number
  readonly batches: number
  readonly cachedBytes: number
  readonly cachedMessages: number
  /** Readers that began with what was, by where that is. */
  readonly resumes: Sources
  readonly pages: Sources
  /** Positions behind which messages are gone. */
  readonly lost: number
}

type Sources = Readonly<Record<'memory' | 'tables', number>>

/** Messages and bytes of a page, which each reader that resumes may hold. */
const PAGE = 500
const PAGE_BYTES = 262_144

export interface JournalOptions {
  readonly database: Pick<Database, 'connect'>
  /** An interval as PostgreSQL reads it. */
  readonly retention: string
  /** Bytes for the newest messages in memory. */
  readonly cacheBytes: number
  /** Milliseconds, as PGWS_CHECK_LISTENER_INTERVAL; 0 where that is unset. */
  readonly checkInterval: number
  /** Milliseconds between looks and reads for which nobody rang. Default 1,000. */
  readonly unasked?: number
  readonly log: Log
  /** Takes new messages in the order of the journal, a page within one tick. */
  readonly receive: (entries: readonly Entry[]) => void
  /** Readers of any channel may have missed messages between two numbers. */
  readonly lost: (from: number, to: number) => void
}

const READ = `select position::float8 as number, channel, payload
  from pgws.read_channels(array(select json_array_elements_text($1::text::json)), $2::text::bigint, $3::text::int, $4::text::int)`

const NEWEST = 'select pgws.newest(array(select json_array_elements_text($1::text::json)), $2::text::int)::float8 as number'
const HEAD = 'select head::float8 as head from pgws.stand()'

export function createJournal(options: JournalOptions): Journal {
  const follower = createFollower({
    ...options,
    lost(from, to) {
      lost++
      options.lost(from, to)
    },
  })
  const sequencer = createSequencer({ ...options, sequenced: follower.rang })
  const tables = createTables(options.database)
  const pages = { memory: 0, tables: 0 }
  const resumes = { memory: 0, tables: 0 }
  let lost = 0

  const isAtHand = (number: number): boolean => number >= follower.pages.recent.since

  function fromMemory(channels: readonly string[], number: number): Page {
    pages.memory++
    const entries = follower.pages.recent.after(channels, number, PAGE)
    const last = entries.length < PAGE ? undefined : entries.at(-1)
    return { entries, upTo: last?.number ?? follower.pages.head, isEnd: last === undefined }
  }

  async function fromTables(channels: readonly string[], number: number): Promise<Page | 'lost'> {
    pages.tables++
    const received = follower.pages.head
    try {
      const rows = await tables.query(READ, [asParameter(channels), ...[number, PAGE, PAGE_BYTES].map(String)])
      const found = rows.map(entryOf)
      // What was not received yet comes live.
      const entries = found.filter((entry) => entry.number <= follower.pages.head)
      if (entries.length < found.length) return { entries, upTo: follower.pages.head, isEnd: false }
      return { entries, upTo: entries.at(-1)?.number ?? Math.max(number, received), isEnd: false }
    } catch (error) {
      if (asDatabaseError(error).code !== GONE) throw error
      lost++
      return 'lost'
    }
  }

  async function newestInTables(channels: readonly string[], count: number): Promise<number> {
    // What is published while the tables are asked lies behind this.
    const { head } = follower.pages
    const [row] = await tables.query(NEWEST, [asParameter(channels), String(count)])
    return row?.number == null ? head : Math.min(Number(row.number), follower.pages.head)
  }

  /** A position that another server gave, which this one may not have received yet. */
  async function ahead(number: number): Promise<number | 'lost'> {
    const [row] = await tables.query(HEAD)
    if (number > Number(row?.head)) return 'lost'
    await follower.reached(number)
    return number
  }

  /** Counts where a reader begins. */
  function begun<T extends number | string>(found: T | Promise<T>): T | Promise<T> {
    if (found instanceof Promise) return found.then(begun)
    if (found === 'lost' || (typeof found === 'number' && found + 1 < follower.pages.kept)) lost++
    else if (typeof found === 'number') resumes[isAtHand(found) ? 'memory' : 'tables']++
    return found
  }

  const history: History = {
    get head() {
      return follower.pages.head
    },
    get kept() {
      return follower.pages.kept
    },
    after: (channels, number) => (isAtHand(number) ? fromMemory(channels, number) : fromTables(channels, number)),
    last(channels, count) {
      const entries = follower.pages.recent.last(channels, count)
      const first = entries.length === count ? entries[0] : undefined
      return begun(first === undefined ? newestInTables(channels, count) : first.number - 1)
    },
    find(position) {
      const number = numberOf(follower.pages.epochs, position)
      return begun(typeof number === 'string' || number <= follower.pages.head ? number : ahead(number))
    },
    position: (number) => positionOf(follower.pages.epochs, number),
  }

  return {
    history,
    get isReading() {
      return follower.isReading
    },
    get figures() {
      const { recent } = follower.pages
      const { state, looks, batches } = sequencer
      const cached = { cachedBytes: recent.bytes, cachedMessages: recent.size }
      return { sequencer: state, looks, batches, ...cached, resumes, pages, lost }
    },
    holdings: () => readHoldings(tables, follower.pages.head),
    async start() {
      await mustBeUsable(tables, options.retention)
      // So that there is an epoch before anyone asks for a position.
      await tables.query(BEGIN_SESSION, [options.retention])
      await follower.start()
      sequencer.start()
    },
    rang(channel, notification) {
      if (channel === BELL) sequencer.rang()
      else if (channel === SEQUENCED) follower.rang(Number(notification))
    },
    stop() {
      sequencer.stop()
      follower.stop()
      tables.stop()
    },
  }
}

/** No text of PostgreSQL holds a NUL: it refuses to be asked for such a channel, on which nothing is kept. */
const asParameter = (channels: readonly string[]): string => JSON.stringify(channels.filter((channel) => !channel.includes('\0')))

interface Tables {
  query(statement: string, parameters?: readonly string[]): Promise<readonly Row[]>
  stop(): void
}

/** Milliseconds that a statement gets. */
const ANSWER_LIMIT = 10_000

/**
 * A session of its own for what readers ask for, so that pages delay nothing new. It is opened when it is first needed. One statement at
 * a time: what waits for its turn is not late.
 */
function createTables(database: Pick<Database, 'connect'>): Tables {
  let state: 'open' | 'stopped' = 'open'
  let opening: Promise<Connection> | undefined
  let turn: Promise<unknown> = Promise.resolve()

  async function open(): Promise<Connection> {
    if (state === 'stopped') throw new DatabaseError('the journal is stopped', 'CONNECTION_CLOSED', false)
    const session = await database.connect()
    void session.closed.then(() => (opening = undefined))
    return session
  }

  function opened(): Promise<Connection> {
    opening ??= open().catch((error) => {
      opening = undefined
      throw error
    })
    return opening
  }

  return {
    query(statement, parameters) {
      const run = async () => askWithin(ANSWER_LIMIT, await opened(), statement, parameters)
      const answer = turn.then(run)
      turn = answer.catch(() => undefined)
      return answer
    },
    stop() {
      state = 'stopped'
      opening?.then(
        (session) => session.close(),
        () => undefined,
      )
    },
  }
}
