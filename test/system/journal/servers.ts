/** Owns what the property test of the journal drives: servers that can be frozen, killed and started anew, and readers that go between them. */
import { BELLS, createJournal, type Entry, type Journal } from '../../../lib/broker/postgres/journal/journal.ts'
import type { Database } from '../../../lib/database/connection.ts'
import { parseConninfo } from '../../../lib/database/conninfo.ts'
import { createDatabase } from '../../../lib/database/database.ts'
import { createLog } from '../../../lib/log.ts'
import type { JournalDatabase } from '../../support/journal.ts'

const log = createLog({
  level: process.env.JOURNAL_LOG ? 'debug' : 'error',
  write: (line) => console.error(performance.now().toFixed(0), line),
})

/** Longer than any test: what a bell does not bring does not come. */
const NEVER = 2_000_000_000

/** Small, so that much is read from the tables. */
const CACHE_BYTES = 6000

const CHECK_INTERVAL = 300

export interface Server {
  readonly journal: Journal
  /** All that came live, in the order in which it came. */
  readonly stream: Entry[]
  /** The head at the start. */
  readonly from: number
  readonly readers: Set<Reader>
  /** While it is frozen, the server asks nothing and hears no answer, but keeps its sessions. */
  freeze(milliseconds: number): void
  /** It hears bells late, and so is behind the tables that its readers are given pages from. */
  deafen(milliseconds: number): void
  readonly isStopped: boolean
  stop(): void
}

export async function startServer(place: JournalDatabase): Promise<Server> {
  let thawed: Promise<void> = Promise.resolve()
  let hears: Promise<void> = Promise.resolve()
  let isStopped = false
  const readers = new Set<Reader>()
  const stream: Entry[] = []
  const database = createDatabase(() => parseConninfo(place.uri, {}, () => new Uint8Array(), 'nobody'), 0)
  const journal = createJournal({
    database: freezing(database, () => thawed),
    retention: '1 day',
    cacheBytes: CACHE_BYTES,
    checkInterval: CHECK_INTERVAL,
    unasked: NEVER,
    log,
    receive(entries) {
      stream.push(...entries)
      for (const reader of readers) reader.receive(entries)
    },
    lost: (from, to) => {
      throw new Error(`lost from ${from} to ${to}`)
    },
  })
  const bells = place.session()
  for (const channel of BELLS)
    await bells.listen(channel, (text) => void Promise.all([thawed, hears]).then(() => journal.rang(channel, text)))
  await journal.start()
  return {
    journal,
    stream,
    from: (stream[0]?.number ?? journal.history.head + 1) - 1,
    readers,
    freeze(milliseconds) {
      thawed = Bun.sleep(milliseconds)
    },
    deafen(milliseconds) {
      hears = Bun.sleep(milliseconds)
    },
    get isStopped() {
      return isStopped
    },
    stop() {
      isStopped = true
      journal.stop()
      void bells.end({ timeout: 0 })
    },
  }
}

function freezing(database: Database, thawed: () => Promise<void>): Pick<Database, 'connect'> {
  return {
    async connect() {
      await thawed()
      const session = await database.connect()
      return {
        ...session,
        async query(statement, parameters) {
          await thawed()
          const rows = await session.query(statement, parameters)
          await thawed()
          return rows
        },
      }
    },
  }
}

/** A client of some channels, which comes, goes, and resumes where it was, on any server. */
export class Reader {
  readonly seen: Entry[] = []
  readonly channels: readonly string[]
  /** The number behind which it wants everything. */
  since: number | undefined
  #server: Server | undefined
  #isLive = false

  constructor(channels: readonly string[]) {
    this.channels = channels
  }

  get isLive(): boolean {
    return this.#isLive
  }

  receive(entries: readonly Entry[]): void {
    if (this.#isLive) this.seen.push(...entries.filter(({ channel }) => this.channels.includes(channel)))
  }

  leave(): void {
    this.#isLive = false
    this.#server?.readers.delete(this)
    this.#server = undefined
  }

  /** At first behind the last so many messages, and then where it was. */
  async join(server: Server, last: number): Promise<void> {
    this.#server = server
    const { history } = server.journal
    if (this.since === undefined) {
      this.since = await history.last(this.channels, last)
    }
    // What is not in a page is still known to be behind the position that the reader came with.
    let at: number | 'lost' | 'malformed' = await history.find(history.position(this.seen.at(-1)?.number ?? this.since))
    while (this.#server === server) {
      if (typeof at === 'string') throw new Error(`the position is ${at}`)
      const given = history.after(this.channels, at)
      const page = given instanceof Promise ? await given : given
      if (this.#server !== server) return
      if (page === 'lost') throw new Error('the page is lost')
      if (page.entries.length > 0 && page.upTo <= at) throw new Error(`a page behind ${at} does not lead on`)
      this.seen.push(...page.entries)
      at = page.upTo
      if (!page.isEnd) continue
      if (server.isStopped) throw new Error('the server is gone')
      server.readers.add(this)
      this.#isLive = true
      return
    }
  }
}
