/**
 * Whatever publishers, servers and readers do, each reader gets each committed message of its channels once, and all in one order. The
 * seed is printed when it fails; JOURNAL_SEED repeats a run as far as chance allows, and JOURNAL_SECONDS makes it longer.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import type postgres from 'postgres'
import { type JournalDatabase, startJournal } from '../../support/journal.ts'
import { createRandom, type Random } from '../../support/random.ts'
import { CHANNELS, createModel, type Model, publishOnce } from './publishers.ts'
import { Reader, type Server, startServer } from './servers.ts'

const SECONDS = Number(process.env.JOURNAL_SECONDS ?? 20)
const seed = Number(process.env.JOURNAL_SEED ?? Date.now() % 1_000_000)

/** Milliseconds in which everything that was committed arrives, once nothing more happens. */
const PATIENCE = 5000

let place: JournalDatabase

beforeAll(async () => {
  place = await startJournal({ fsync: 'off' })
})
afterAll(() => place.stop())

interface Truth {
  readonly number: number
  readonly channel: string
  readonly text: string
}

test(
  'each reader gets each committed message once, in one order, whoever comes, goes or fails',
  async () => {
    const random = createRandom(seed)
    const model = createModel()
    const publishers = Array.from({ length: 4 }, () => place.session())
    const impostors = [place.session(), place.session()]
    const servers = [await startServer(place), await startServer(place)]
    const readers: Reader[] = []
    const end = performance.now() + SECONDS * 1000
    try {
      let rounds = 0
      while (performance.now() < end) {
        const before = model.committed.length
        const isAlone = rounds % 3 === 2
        const isOver = { value: false }
        // Nobody stands by then who would look in place of a sequencer that overslept.
        if (isAlone) remove(servers, readers, 0)
        const disturbing = isAlone ? undefined : disturb(servers, impostors, readers, random, isOver)
        await Promise.all(publishers.map((session) => publishFor(session, model, random)))
        // The last one began while the sequencer looked, and ends when that has fallen asleep.
        await publishOnce(publishers[0] as postgres.Sql, model, random, true)
        isOver.value = true
        await disturbing
        for (const reader of readers) if (!reader.isLive) await join(reader, servers, random)
        await arrive(servers, readers, model)
        rounds++
        expect({ seed, rounds, published: model.committed.length > before }).toMatchObject({ published: true })
        judge(await truth(), model, servers, readers)
        if (isAlone) servers.push(await startServer(place))
      }
      expect(rounds).toBeGreaterThan(2)
    } catch (error) {
      console.error(`JOURNAL_SEED=${seed}`)
      throw error
    } finally {
      for (const server of servers) server.stop()
    }
  },
  (SECONDS + 60) * 1000,
)

async function publishFor(session: postgres.Sql, model: Model, random: Random): Promise<void> {
  for (let left = 3 + random.below(20); left > 0; left--) {
    await publishOnce(session, model, random, random.below(12) === 0)
    if (random.below(6) === 0) await Bun.sleep(random.below(120))
  }
}

/** What happens to servers and readers while others publish. */
async function disturb(
  servers: Server[],
  impostors: readonly postgres.Sql[],
  readers: Reader[],
  random: Random,
  isOver: { readonly value: boolean },
): Promise<void> {
  const joining: Promise<void>[] = []
  while (!isOver.value) {
    const index = random.below(servers.length)
    const server = servers[index] as Server
    const kind = random.below(20)
    if (kind === 0) server.freeze(200 + random.below(600))
    else if (kind === 1) {
      await place.sql`select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = 1885828979 and objid = 2 and granted`
    } else if (kind === 2) {
      remove(servers, readers, index)
      servers.push(await startServer(place))
    } else if (kind === 3) server.deafen(50 + random.below(300))
    else if (kind === 4) {
      await place.sql`select pg_terminate_backend(pid) from pg_stat_activity where query like '%pgws.stand()%' and pid <> pg_backend_pid()`
    } else if (kind < 7) {
      // Who looks without being the sequencer, two at once.
      await Promise.allSettled(impostors.map((session) => session`select pgws.look()`))
    } else if (kind < 13 && readers.length < 30) {
      const reader = new Reader(CHANNELS.filter(() => random.below(3) === 0).concat(random.pick(CHANNELS)))
      readers.push(reader)
      joining.push(join(reader, servers, random))
    } else if (readers.length > 0) {
      const reader = random.pick(readers)
      if (reader.isLive) {
        reader.leave()
        joining.push(join(reader, servers, random))
      }
    }
    await Bun.sleep(random.below(30))
  }
  await Promise.all(joining)
}

/** Ends a server, and with it the connections of its readers. */
function remove(servers: Server[], readers: readonly Reader[], index: number): void {
  const [server] = servers.splice(index, 1)
  for (const reader of readers) if (server?.readers.has(reader)) reader.leave()
  server?.stop()
}

/** Tries again where the server that it went to is gone. */
async function join(reader: Reader, servers: readonly Server[], random: Random): Promise<void> {
  for (let attempt = 0; !reader.isLive && attempt < 50; attempt++) {
    const server = random.pick(servers)
    try {
      await reader.join(server, 1 + random.below(40))
    } catch (error) {
      reader.leave()
      if (/lost|malformed|does not lead on/.test(String(error))) throw error
      await Bun.sleep(20)
    }
  }
}

/** Returns when every server has received what was committed. */
async function arrive(servers: readonly Server[], readers: readonly Reader[], model: Model): Promise<void> {
  const expected = model.committed.reduce((sum, { messages }) => sum + messages.length, 0)
  const deadline = performance.now() + PATIENCE
  for (;;) {
    const all = await truth()
    const head = all.at(-1)?.number ?? 0
    if (
      all.length >= expected &&
      servers.every(({ journal }) => journal.history.head >= head) &&
      readers.every(({ isLive }) => isLive)
    )
      return
    if (performance.now() > deadline) {
      const states = servers.map(({ journal }) => ({ head: journal.history.head, ...journal.figures }))
      throw new Error(`stalled: ${JSON.stringify({ expected, head, states })}`)
    }
    await Bun.sleep(10)
  }
}

async function truth(): Promise<Truth[]> {
  const rows = await place.sql`select position::float8 as number, channel, payload from pgws.read(0, 1000000, 2000000000, 1)`
  return rows.map(({ number, channel, payload }) => ({ number: Number(number), channel: String(channel), text: String(payload) }))
}

function judge(all: readonly Truth[], model: Model, servers: readonly Server[], readers: readonly Reader[]): void {
  // The journal holds what was committed, once, each transaction in one piece and in its order.
  const places = new Map(all.map(({ text }, index) => [text, index]))
  expect(places.size).toBe(all.length)
  expect(all.length).toBe(model.committed.reduce((sum, { messages }) => sum + messages.length, 0))
  const firsts = model.committed.map(({ messages, began, ended }) => {
    const first = places.get(messages[0]?.text ?? '') ?? Number.NaN
    expect(messages.map(({ text }) => places.get(text))).toEqual(messages.map((_, index) => first + index))
    return { first, began, ended }
  })
  // Of two transactions of which one ended before the other began, the first comes first.
  const byPlace = firsts.sort((one, other) => one.first - other.first)
  let latestBegin = 0
  for (const { began, ended } of byPlace) {
    expect(ended).toBeGreaterThan(latestBegin)
    latestBegin = Math.max(latestBegin, began)
  }
  for (const { stream, from } of servers) expect(stream).toEqual(all.filter(({ number }) => number > from))
  for (const { seen, since = 0, channels } of readers)
    expect(seen).toEqual(all.filter(({ number, channel }) => number > since && channels.includes(channel)))
}
