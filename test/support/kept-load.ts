/** Owns a load on the journal: transactions and clients that publish, and readers that stay, or leave and come back where they were. */

import type { Connection } from '../../lib/database/connection.ts'
import { parseConninfo } from '../../lib/database/conninfo.ts'
import { createDatabase } from '../../lib/database/database.ts'
import { type Client, connect } from './client.ts'
import type { Kept, KeptLedger } from './kept-ledger.ts'
import type { Random } from './random.ts'

export interface Publishing {
  stop(): Promise<void>
}

/** Milliseconds that a session may leave a statement without an answer. */
const ANSWER = 10_000

/** Milliseconds until everything that was published is read, once there are no faults. */
const PATIENCE = 30_000

/** A session that does not connect again: what it began ends with it. */
export async function openSession(uri: string): Promise<Connection> {
  return createDatabase(() => parseConninfo(uri, {}, () => new Uint8Array(), 'nobody'), 0).connect()
}

async function answered<T>(session: Connection, answer: Promise<T>): Promise<T> {
  const timer = setTimeout(() => session.close(), ANSWER)
  try {
    return await answer
  } finally {
    clearTimeout(timer)
  }
}

/** One statement in a session of its own. */
export async function askOnce(uri: string, statement: string, parameters?: readonly string[]) {
  const session = await openSession(uri)
  try {
    return await answered(session, session.query(statement, parameters))
  } finally {
    session.close()
  }
}

export interface SqlOptions {
  readonly uri: string
  readonly channels: readonly string[]
  readonly name: string
  readonly ledger: KeptLedger
  readonly random: Random
  /** Milliseconds between two transactions. */
  readonly pace: number
  /** The most milliseconds for which a long transaction stays open, as some do. */
  readonly longest: number
}

/** Transactions that publish some messages: short and long ones, with savepoints that are rolled back, and rolled back as a whole. */
export function startTransactions({ uri, channels, name, ledger, random, pace, longest }: SqlOptions): Publishing {
  const { below, pick } = random
  let isGoing = true

  async function transaction(session: Connection): Promise<void> {
    const texts: string[] = []
    const ask = (statement: string, parameters: readonly string[] = []) => answered(session, session.query(statement, parameters))
    const publish = async (): Promise<void> => {
      const text = ledger.next(name)
      texts.push(text)
      await ask('select pgws.publish($1, $2)', [pick(channels), text])
    }
    let isCommitting = false
    try {
      await ask('begin')
      for (let left = 1 + below(5); left > 0; left--) await publish()
      if (below(4) === 0) {
        await ask('savepoint undone')
        await publish()
        ledger.rolledBack(texts.splice(-1))
        await ask('rollback to undone')
      }
      if (below(20) === 0) await Bun.sleep(below(longest))
      isCommitting = below(5) > 0
      await ask(isCommitting ? 'commit' : 'rollback')
    } catch (error) {
      // Whether a commit without an answer took place is not known.
      if (!isCommitting) ledger.rolledBack(texts)
      throw error
    }
    if (isCommitting) ledger.committed(texts)
    else ledger.rolledBack(texts)
  }

  const going = (async () => {
    while (isGoing) {
      const session = await openSession(uri).catch(() => undefined)
      try {
        while (isGoing && session) {
          await transaction(session)
          await Bun.sleep(pace)
        }
      } catch {
        // Another session goes on.
      }
      session?.close()
      if (!session) await Bun.sleep(100)
    }
  })()
  return {
    async stop() {
      isGoing = false
      await going
    },
  }
}

/** A client that publishes on one channel. It ends as well when its connection does. */
export async function startClient(
  url: string,
  name: string,
  ledger: KeptLedger,
  { ca, home, pace }: { readonly ca?: string; readonly home: object; readonly pace: number },
): Promise<Publishing> {
  const client = await connect(url, ca === undefined ? {} : { ca })
  const texts: string[] = []
  let isGoing = true
  const closed = client.closed.finally(() => {
    isGoing = false
  })
  const going = (async () => {
    while (isGoing) {
      for (let left = 5; left > 0; left--) {
        const text = ledger.next(name)
        texts.push(text)
        client.send(text)
      }
      await Promise.race([Bun.sleep(pace), closed])
    }
  })()
  return {
    async stop() {
      const wasGoing = isGoing
      isGoing = false
      await going
      await client.close(1000)
      // A server that closed first may not have read all that was sent.
      if (wasGoing && (await closed).code === 1000) ledger.committed(texts, home)
    },
  }
}

export interface ReaderOptions {
  /** Where it connects this time: a URL without a query, whose token names its channels. */
  readonly place: () => Promise<{ readonly url: string; readonly ca?: string }>
  readonly channels: readonly string[]
  readonly ledger: KeptLedger
  /** The position behind which it wants everything. */
  readonly from: string
  /** Milliseconds after which it leaves, and for which it is away; undefined where it stays. */
  readonly comesAndGoes?: { readonly stay: () => number; readonly away: () => number }
}

export interface KeptReader {
  /** Ends it, once it has seen these texts. One that comes back for as long as it takes is held to all that was published. */
  stop(marks: readonly string[]): Promise<void>
}

export const numberOf = (position: string): number => Number(position.split('-')[1])

/** With `pgws.json` a reader knows the position of each message, and comes back behind the last. One that stays speaks `pgws`. */
export function startKeptReader({ place, channels, ledger, from, comesAndGoes }: ReaderOptions): KeptReader {
  const view = ledger.view(channels, numberOf(from))
  const protocol = comesAndGoes ? 'pgws.json' : 'pgws'
  let position = from
  let client: Client | undefined
  let isGoing = true

  function take(text: string): void {
    if (text.startsWith('{"event":"MessagesMissed"')) return view.told()
    if (!comesAndGoes) return view.receive(text)
    const message = JSON.parse(text)
    if (message.event === 'MessagesMissed') return view.told()
    if (message.event !== 'Message') return
    view.receive(message.text)
    position = message.position
  }

  async function visit(): Promise<void> {
    const { url, ca } = await place()
    const opened = await connect(`${url}?since=${position}`, { protocols: [protocol], ...(ca === undefined ? {} : { ca }) })
    client = opened
    const timer = comesAndGoes && setTimeout(() => void opened.close(1000), comesAndGoes.stay())
    try {
      for (;;) take(await opened.next())
    } catch {
      // It is closed, and all that came is taken.
    }
    clearTimeout(timer)
  }

  const reading = (async () => {
    do {
      try {
        await visit()
      } catch {
        // There is nobody at that place just now.
        await Bun.sleep(100)
        continue
      }
      if (!comesAndGoes) return
      if (isGoing) await Bun.sleep(comesAndGoes.away())
    } while (isGoing)
  })()
  let isOver = false
  void reading.then(() => {
    isOver = true
  })
  return {
    async stop(marks) {
      const end = Date.now() + PATIENCE
      while (!isOver && Date.now() < end && !marks.every(view.hasSeen)) await Bun.sleep(20)
      if (!isOver) view.complete()
      isGoing = false
      await client?.close(1000)
      await reading
    },
  }
}

/** Publishes a last message on each channel, however long it takes. */
export async function markEnds(
  uri: string,
  channels: readonly string[],
  ledger: KeptLedger,
): Promise<ReadonlyMap<string, string>> {
  const marks = new Map<string, string>()
  for (const channel of channels) {
    for (const end = Date.now() + PATIENCE; ; await Bun.sleep(100)) {
      const text = ledger.next(`mark on ${channel}`)
      try {
        await askOnce(uri, 'select pgws.publish($1, $2)', [channel, text])
        ledger.committed([text])
        marks.set(channel, text)
        break
      } catch (error) {
        if (Date.now() > end) throw error
      }
    }
  }
  return marks
}

/** Everything behind a number, in its order, once all is there that was accepted, or after a while. */
export async function keptTruth(uri: string, from: number, ledger: KeptLedger): Promise<readonly Kept[]> {
  for (const end = Date.now() + PATIENCE; ; await Bun.sleep(200)) {
    const rows = await askOnce(
      uri,
      'select r.position::float8 as number, r.channel, r.payload as text from pgws.stand() s, pgws.read($1::text::bigint, 10000000, 2000000000, s.epoch) r',
      [String(from)],
    )
    const truth = rows.map((row) => ({ number: Number(row.number), channel: String(row.channel), text: String(row.text) }))
    if (ledger.isWhole(truth) || Date.now() > end) return truth
  }
}
