/**
 * Owns what one server knows of the journal: it reads what is new, in the order of the journal, keeps the newest in memory, and gives
 * what lies behind a position from there, or else from the tables.
 *
 *     connecting ──▶ reading ──lost──▶ waiting ──▶ connecting …
 *
 * It reads at each bell of the sequencer, and every second. Nothing is missed while the database is away: it goes on where it was. Only
 * what is gone from the tables meanwhile, or lies behind a fork, is told as lost.
 */
import { asDatabaseError, type Connection, type Database, DatabaseError, type Row } from '../../../database/connection.ts'
import type { Log } from '../../../log.ts'
import { createBackoff, createPause } from '../../../waiting.ts'
import { askWithin } from './asking.ts'
import { UNASKED } from './bells.ts'
import { EPOCHS, type Epoch, epochOf, positionOf } from './positions.ts'
import { createRecent, type Entry, type Recent } from './recent.ts'

/** The database channel on which the sequencer rings for every server. */
export const SEQUENCED = 'pgws_sequenced'

export interface Follower {
  /** Whether the journal is read, as far as is known. */
  readonly isReading: boolean
  /** The number of the newest message that was received. */
  readonly head: number
  /** The first number that is kept. */
  readonly kept: number
  readonly epochs: readonly Epoch[]
  readonly recent: Pick<Recent, 'after' | 'last' | 'since' | 'bytes' | 'size'>
  /**
   * Connects, and reads until it is stopped. What was published before is not received.
   *
   * @returns once the head is known. @throws DatabaseError where the first attempt fails.
   */
  start(): Promise<void>
  /** Settled when `head` is at a number, or beyond. @throws DatabaseError when the journal cannot be read before. */
  reached(number: number): Promise<void>
  /** The sequencer rang: the journal reaches up to this number. */
  rang(number: number): void
  stop(): void
}

export interface FollowerOptions {
  readonly database: Pick<Database, 'connect'>
  /** For the newest messages in memory. */
  readonly cacheBytes: number
  /** Milliseconds for an answer of the database at least; 0 for 10 s. */
  readonly checkInterval: number
  /** Milliseconds between reads for which nobody rang. Default 1,000. */
  readonly unasked?: number
  readonly log: Log
  /** Takes new messages, in the journal's order, one page within one tick. */
  readonly receive: (entries: readonly Entry[]) => void
  /** Messages behind one number up to another are gone, or were never given to others: readers are to be told. */
  readonly lost: (from: number, to: number) => void
}

type State = 'stopped' | 'connecting' | 'reading' | 'waiting'

/** Messages and bytes of a page. */
const PAGE = 1000
const PAGE_BYTES = 4 * 1_048_576

const SHORTEST_LIMIT = 5000
const LONGEST_LIMIT = 10_000

/** SQLSTATEs of the schema: messages behind a position are gone, or another epoch has begun. */
export const GONE = 'PT410'
const FORKED = 'PT409'

const STAND = 'select head::float8 as head, kept::float8 as kept, epoch from pgws.stand()'

/** The end of the journal beside each message, or alone where there is none. */
const READ = `select s.head::float8 as head, m.position::float8 as number, m.channel, m.payload
  from pgws.stand() s left join lateral pgws.read($1::text::bigint, $2::text::int, $3::text::int, $4::text::int) m on true`

export const entryOf = (row: Row): Entry => ({
  number: Number(row.number),
  channel: String(row.channel),
  text: String(row.payload),
})

export function createFollower(options: FollowerOptions): Follower {
  const { database, log } = options
  const limit = options.checkInterval > 0 ? Math.max(options.checkInterval * 2, SHORTEST_LIMIT) : LONGEST_LIMIT
  const backoff = createBackoff()
  const pause = createPause()
  const recent = createRecent(options.cacheBytes, 0)
  let state: State = 'stopped'
  let session: Connection | undefined
  let head = -1
  let kept = 0
  let epochs: readonly Epoch[] = []
  /** The newest epoch that is known. */
  let epoch = -1
  let rangAt = 0
  let readAt = 0
  let waiting: { readonly number: number; readonly settle: (error?: DatabaseError) => void }[] = []

  const is = (wanted: State): boolean => state === wanted

  const nap = (): Promise<void> =>
    rangAt >= readAt || waiting.length > 0 || is('stopped') ? Promise.resolve() : pause.wait(options.unasked ?? UNASKED)

  const ask = (statement: string, parameters?: readonly string[]): Promise<readonly Row[]> =>
    askWithin(limit, session, statement, parameters)

  async function connect(): Promise<void> {
    state = 'connecting'
    const opened = await database.connect()
    if (!is('connecting')) return opened.close()
    session = opened
    void opened.closed.then(pause.end)
    await orient()
    while (is('connecting') && (await read()));
    if (!is('connecting')) return
    state = 'reading'
    backoff.reset()
    log.info('reading the journal', { position: positionOf(epochs, head) })
  }

  /** Where to read on: at first at the end, and otherwise where it was, unless that is gone or lies behind a fork. */
  async function orient(): Promise<void> {
    const [stand] = await ask(STAND)
    const found = (await ask(EPOCHS)).map(epochOf)
    if (is('stopped') || stand === undefined) return
    const fork = (found.find(({ number }) => number > epoch)?.began ?? Number.POSITIVE_INFINITY) - 1
    kept = Number(stand.kept)
    epochs = found
    if (head < 0) moveTo(Number(stand.head))
    else if (fork < head) tellLost(fork, head, fork)
    else if (head + 1 < kept) tellLost(head, kept - 1, kept - 1)
    epoch = Number(stand.epoch)
  }

  function tellLost(from: number, to: number, next: number): void {
    log.warning('messages of the journal are lost', { from, to, next })
    moveTo(next)
    options.lost(from, to)
  }

  function moveTo(number: number): void {
    head = number
    recent.clear(number)
  }

  /** Reads one page, and says whether there is more. */
  async function read(): Promise<boolean> {
    readAt = performance.now()
    const rows = await readPage()
    if (rows === undefined || is('stopped')) return rows === undefined
    const end = Number(rows[0]?.head)
    const entries = rows.filter(({ number }) => number !== null).map(entryOf)
    for (const entry of entries) recent.add(entry)
    head = Math.max(head, entries.at(-1)?.number ?? end)
    if (entries.length > 0) options.receive(entries)
    settle(({ number }) => number <= head)
    return head < end
  }

  function settle(isDone: (one: { readonly number: number }) => boolean, error?: DatabaseError): void {
    const done = waiting.filter(isDone)
    waiting = waiting.filter((one) => !isDone(one))
    for (const one of done) one.settle(error)
  }

  /** Undefined where reading goes on from somewhere else. */
  async function readPage(): Promise<readonly Row[] | undefined> {
    try {
      return await ask(READ, [head, PAGE, PAGE_BYTES, epoch].map(String))
    } catch (error) {
      const { code } = asDatabaseError(error)
      if (code !== GONE && code !== FORKED) throw error
      await orient()
      return undefined
    }
  }

  async function follow(): Promise<void> {
    while (is('reading')) {
      await nap()
      while (is('reading') && (await read()));
    }
  }

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
    settle(() => true, cannotRead())
  }

  return {
    get isReading() {
      return is('reading')
    },
    get head() {
      return head
    },
    get kept() {
      return kept
    },
    get epochs() {
      return epochs
    },
    recent,
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
      if (head >= number) return Promise.resolve()
      if (is('stopped')) return Promise.reject(cannotRead())
      return new Promise((resolve, reject) => {
        waiting.push({ number, settle: (error) => (error ? reject(error) : resolve()) })
        pause.end()
      })
    },
    rang(number) {
      if (number <= head) return
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
