/**
 * Owns the pages that a server reads of the journal: where the next one begins, and what of the journal is lost to it. It goes on
 * where it was. Only what is gone from the tables meanwhile, or lies behind a fork, is told as lost.
 */
import { asDatabaseError, type Row } from '../../../database/connection.ts'
import type { Log } from '../../../log.ts'
import { EPOCHS, type Epoch, epochOf } from './positions.ts'
import { createRecent, type Entry, type Recent } from './recent.ts'

export interface Pages {
  /** The number of the newest message that was received. */
  readonly head: number
  /** The first number that is kept. */
  readonly kept: number
  readonly epochs: readonly Epoch[]
  readonly recent: Pick<Recent, 'after' | 'last' | 'since' | 'bytes' | 'size'>
  /** Finds where to read on: at first at the end, and otherwise where it was, unless that is gone or lies behind a fork. */
  orient(): Promise<void>
  /** Reads one page, and says whether there is more. */
  read(): Promise<boolean>
}

export interface PagesOptions {
  readonly ask: (statement: string, parameters?: readonly string[]) => Promise<readonly Row[]>
  readonly isStopped: () => boolean
  /** For the newest messages in memory. */
  readonly cacheBytes: number
  readonly log: Log
  /** Takes new messages, in the journal's order, one page within one tick. */
  readonly receive: (entries: readonly Entry[]) => void
  /** Told behind each page up to where the journal is read. */
  readonly arrived: (head: number) => void
  /** Messages behind one number up to another are gone, or were never given to others: readers are to be told. */
  readonly lost: (from: number, to: number) => void
}

/** Messages and bytes of a page. */
const PAGE = 1000
const PAGE_BYTES = 4 * 1_048_576

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

export function createPages({ ask, isStopped, cacheBytes, log, receive, arrived, lost }: PagesOptions): Pages {
  const recent = createRecent(cacheBytes, 0)
  let head = -1
  let kept = 0
  let epochs: readonly Epoch[] = []
  /** The newest epoch that is known. */
  let epoch = -1

  async function orient(): Promise<void> {
    const [stand] = await ask(STAND)
    const found = (await ask(EPOCHS)).map(epochOf)
    if (isStopped() || stand === undefined) return
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
    lost(from, to)
  }

  function moveTo(number: number): void {
    head = number
    recent.clear(number)
  }

  async function read(): Promise<boolean> {
    const rows = await readPage()
    if (rows === undefined || isStopped()) return rows === undefined
    const end = Number(rows[0]?.head)
    const entries = rows.filter(({ number }) => number !== null).map(entryOf)
    for (const entry of entries) recent.add(entry)
    head = Math.max(head, entries.at(-1)?.number ?? end)
    if (entries.length > 0) receive(entries)
    arrived(head)
    return head < end
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

  return {
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
    orient,
    read,
  }
}
