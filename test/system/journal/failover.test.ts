/** What a server makes of a database that comes back: the same one, or a replica that was promoted, on another timeline. */
import { expect, test } from 'bun:test'
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { createJournal, type Entry } from '../../../lib/broker/postgres/journal/journal.ts'
import { parseConninfo } from '../../../lib/database/conninfo.ts'
import { createDatabase } from '../../../lib/database/database.ts'
import { schema } from '../../../lib/database/schema/install.ts'
import { createLog } from '../../../lib/log.ts'
import { startPostgres } from '../../support/postgres.ts'
import { startProxy } from '../../support/proxy.ts'

interface Follower {
  readonly journal: ReturnType<typeof createJournal>
  readonly stream: Entry[]
  readonly lost: [number, number][]
}

/** A server without bells: it looks and reads on its own. */
function follow(uri: string): Follower {
  const stream: Entry[] = []
  const lost: [number, number][] = []
  const journal = createJournal({
    database: createDatabase(() => parseConninfo(uri, {}, () => new Uint8Array(), 'nobody'), 0),
    retention: '1 day',
    cacheBytes: 1_000_000,
    checkInterval: 500,
    unasked: 50,
    log: createLog({ level: 'error', write: console.error }),
    receive: (entries) => void stream.push(...entries),
    lost: (from, to) => void lost.push([from, to]),
  })
  return { journal, stream, lost }
}

async function until(what: string, holds: () => boolean, limit = 10_000): Promise<void> {
  for (const end = performance.now() + limit; !holds(); await Bun.sleep(5)) {
    if (performance.now() > end) throw new Error(`${what} did not come within ${limit} ms`)
  }
}

const texts = ({ stream }: Follower): string[] => stream.map(({ text }) => text)

test.each(['smart', 'fast', 'immediate', 'kill'] as const)(
  'when PostgreSQL is restarted (%s), nothing is missed and nothing comes twice',
  async (mode) => {
    const server = await startPostgres()
    const sql = postgres(server.uri, { max: 1, onnotice: () => undefined })
    await sql.unsafe(schema)
    const follower = follow(server.uri)
    await follower.journal.start()
    await sql`select pgws.publish('chat', 'before')`
    await until('the message', () => follower.stream.length === 1)
    if (mode === 'smart') follower.journal.stop()
    const position = follower.journal.history.position(follower.journal.history.head)
    await sql.unsafe("select pgws.publish('chat', 'just before')")
    await sql.end()
    await server.stop(mode)
    await server.start()
    const again = postgres(server.uri, { max: 1 })
    await again`select pgws.publish('chat', 'after')`
    if (mode === 'smart') {
      // It waits for every session to end.
      const next = follow(server.uri)
      await next.journal.start()
      await until('the head', () => next.journal.history.head >= 3)
      const found = await next.journal.history.find(position)
      expect(found).toBe(1)
      next.journal.stop()
    } else {
      await until('the message', () => texts(follower).includes('after'))
      expect(texts(follower)).toEqual(['before', 'just before', 'after'])
      expect(follower.lost).toEqual([])
      follower.journal.stop()
    }
    await again.end()
    await server.stop()
  },
  30_000,
)

test('after a failover, positions up to the fork are good, those beyond are told, and both servers agree', async () => {
  const primary = await startPostgres({ settings: { wal_level: 'replica', max_wal_senders: '5' } })
  const first = postgres(primary.uri, { max: 1, onnotice: () => undefined })
  await first.unsafe(schema)
  await first.end()
  await primary.stop('fast')
  using proxy = await startProxy(primary.port)
  const replica = await startPostgres({
    prepare: (folder) => {
      cpSync(primary.dataFolder, folder, { recursive: true })
      writeFileSync(join(folder, 'standby.signal'), '')
    },
    settings: {
      primary_conninfo: `host=127.0.0.1 port=${proxy.port} user=postgres password=${primary.password}`,
      hot_standby: 'on',
    },
  })
  await primary.start()
  const place = (port: number) => `postgres://postgres:${primary.password}@127.0.0.1:${port}/postgres`
  const uri = `postgres://postgres:${primary.password}@127.0.0.1:${primary.port},127.0.0.1:${replica.port}/postgres?target_session_attrs=read-write&connect_timeout=2`
  const follower = follow(uri)
  await follower.journal.start()
  const old = postgres(place(primary.port), { max: 1, onnotice: () => undefined })
  const fresh = postgres(place(replica.port), { max: 1, onnotice: () => undefined })
  await old`select pgws.publish('chat', 'replicated')`
  await until('the message', () => follower.stream.length === 1)
  const good = follower.journal.history.position(1)
  for (let replayed = false; !replayed; await Bun.sleep(10))
    replayed = (await fresh`select pgws.position() as position`)[0]?.position === good
  // What the primary commits from here on does not reach the replica.
  proxy.swallow()
  await old`select pgws.publish('chat', 'never replicated')`
  await until('the message', () => follower.stream.length === 2)
  const beyond = follower.journal.history.position(2)
  await old.end()
  await primary.stop('immediate')
  expect((await fresh`select pg_promote() as promoted`)[0]?.promoted).toBe(true)
  await fresh`select pgws.publish('chat', 'after')`
  await until('the message', () => texts(follower).includes('after'))
  expect(texts(follower)).toEqual(['replicated', 'never replicated', 'after'])
  expect(follower.lost).toEqual([[1, 2]])
  const { history } = follower.journal
  expect(history.position(1)).toBe(good)
  expect(await history.find(good)).toBe(1)
  expect(await history.find(beyond)).toBe('lost')
  expect((await fresh`select payload from pgws.history('chat', ${good})`).map(({ payload }) => payload)).toEqual(['after'])
  expect((await fresh`select pgws.position_number(${beyond}) as number`)[0]?.number).toBeNull()
  const other = follow(uri)
  await other.journal.start()
  expect(other.journal.history.position(1)).toBe(good)
  expect(other.journal.history.position(2)).toBe(history.position(2))
  other.journal.stop()
  follower.journal.stop()
  await fresh.end()
  await replica.stop()
  await primary.start()
  await primary.stop()
}, 60_000)
