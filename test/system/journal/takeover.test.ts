/** The journal under faults of servers and of the database: who looks, who takes over, what is read on, and what is told. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { createRecent } from '../../../lib/broker/postgres/journal/recent.ts'
import { type JournalDatabase, startJournal } from '../../support/journal.ts'
import { type Server, startServer } from './servers.ts'

let place: JournalDatabase

beforeAll(async () => {
  place = await startJournal()
})
afterAll(() => place.stop())

async function until(what: string, holds: () => boolean | Promise<boolean>, limit = 5000): Promise<void> {
  for (const end = performance.now() + limit; !(await holds()); await Bun.sleep(5)) {
    if (performance.now() > end) throw new Error(`${what} did not come within ${limit} ms`)
  }
}

const publish = async (payload: string): Promise<void> => void (await place.sql`select pgws.publish('chat', ${payload})`)

const got = (server: Server, payload: string): boolean => server.stream.some(({ text }) => text === payload)

const isSequencer = ({ journal }: Server): boolean => /awake|asleep/.test(journal.figures.sequencer)

/** Two servers, of which the first is the sequencer. */
async function two(): Promise<[Server, Server]> {
  const first = await startServer(place)
  await until('a sequencer', () => isSequencer(first))
  const second = await startServer(place)
  await until('one that stands by', () => second.journal.figures.sequencer === 'standing by')
  return [first, second]
}

describe('of two servers one is the sequencer, and the other takes over', () => {
  test('when it is stopped', async () => {
    const [first, second] = await two()
    try {
      first.stop()
      await publish('after the stop')
      await until('the message', () => got(second, 'after the stop'))
      expect(isSequencer(second)).toBe(true)
    } finally {
      second.stop()
    }
  })

  test('when it hangs with its session open, within two check intervals; and it does no harm when it comes back', async () => {
    const [first, second] = await two()
    try {
      first.freeze(2000)
      const began = performance.now()
      await publish('while it hangs')
      await until('the message', () => got(second, 'while it hangs'))
      expect(performance.now() - began).toBeLessThan(2 * 300 + 400)
      expect(isSequencer(second)).toBe(true)
      await until('the end of its sleep', () => got(first, 'while it hangs'))
      await until('one that stands by', () => first.journal.figures.sequencer === 'standing by')
      await publish('afterwards')
      await until('the message', () => got(first, 'afterwards') && got(second, 'afterwards'))
      expect(first.stream.slice(-2)).toEqual(second.stream.slice(-2))
    } finally {
      first.stop()
      second.stop()
    }
  })

  test('not while a look takes its time', async () => {
    const [first, second] = await two()
    const holder = place.session()
    const sequencing = () =>
      place.sql`select pid from pg_locks where locktype = 'advisory' and classid = 1885828979 and objid = 2`
    const before = [...(await sequencing())]
    try {
      await holder`begin`
      await holder`lock table pgws.transactions in access exclusive mode`
      await publish('slowly looked at')
      // Many checks of the one that stands by.
      await Bun.sleep(1500)
      await holder`commit`
      await until('the message', () => got(first, 'slowly looked at') && got(second, 'slowly looked at'))
      expect([...(await sequencing())]).toEqual(before)
      expect(isSequencer(first)).toBe(true)
    } finally {
      first.stop()
      second.stop()
    }
  })

  test('when it hangs and may not be ended: the other stands in, and steps back', async () => {
    // The lock of a session that the schema's owner may not end.
    await place.sql.unsafe(
      `create role owner login password '${place.server.password}' nosuperuser; grant all on database postgres to owner`,
    )
    const holder = place.session()
    await holder`select pg_advisory_lock(1885828979, 2)`
    await place.sql`alter function pgws.replace_sequencer() owner to owner`
    const server = await startServer(place)
    try {
      await publish('for one who stands in')
      await until('the message', () => got(server, 'for one who stands in'))
      expect(server.journal.figures.sequencer).toBe('standing in')
      await publish('and another')
      await until('the message', () => got(server, 'and another'))
      await holder`select pg_advisory_unlock(1885828979, 2)`
      await until('the lock', () => isSequencer(server))
    } finally {
      server.stop()
      await place.sql`alter function pgws.replace_sequencer() owner to postgres`
    }
  })
})

test('a server that was the only one goes on when its sessions are ended', async () => {
  const server = await startServer(place)
  try {
    for (let round = 0; round < 3; round++) {
      await publish(`before ${round}`)
      await place.sql`select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and query like '%pgws.%' and query not like 'listen%'`
      await publish(`after ${round}`)
      await until('the message', () => got(server, `after ${round}`))
    }
    expect(server.stream.map(({ text }) => text)).toEqual([0, 1, 2].flatMap((round) => [`before ${round}`, `after ${round}`]))
  } finally {
    server.stop()
  }
})

test('asks the database nothing for readers that come back to what is in memory, also while it is away', async () => {
  const own = await startJournal()
  const server = await startServer(own)
  const { history } = server.journal
  for (let index = 0; index < 20; index++) await own.sql`select pgws.publish('chat', ${`message ${index}`})`
  await until('all', () => server.stream.length === 20)
  await own.server.stop('immediate')
  const at = server.stream[9]?.number ?? 0
  const page = history.after(['chat', 'other'], at)
  expect(page).toMatchObject({ isEnd: true, upTo: server.journal.history.head })
  expect('entries' in page && page.entries.map(({ text }) => text)).toEqual(server.stream.slice(10).map(({ text }) => text))
  expect(history.last(['chat'], 5)).toBe((server.stream[15]?.number ?? 0) - 1)
  expect(await history.find(history.position(at))).toBe(at)
  await until('the loss to be seen', () => !server.journal.isReading)
  await own.server.start()
  await until('reading', () => server.journal.isReading)
  server.stop()
  await own.stop().catch(() => undefined)
})

test('memory holds the newest, as many as fit, and knows from where on', () => {
  const recent = createRecent(1000, 5)
  const texts = (entries: readonly { readonly text: string }[]) => entries.map(({ text }) => text)
  for (let number = 6; number <= 30; number++) recent.add({ number, channel: number % 2 ? 'odd' : 'even', text: String(number) })
  expect(recent.bytes).toBeLessThanOrEqual(1000)
  expect(recent.size).toBe(9)
  expect(recent.since).toBe(21)
  expect(texts(recent.after(['odd'], 23, 10))).toEqual(['25', '27', '29'])
  expect(texts(recent.after(['odd', 'even', 'odd'], 21, 3))).toEqual(['22', '23', '24'])
  expect(texts(recent.last(['odd', 'even'], 3))).toEqual(['28', '29', '30'])
  expect(texts(recent.after(['none'], 21, 3))).toEqual([])
  recent.clear(40)
  expect(recent).toMatchObject({ since: 40, bytes: 0, size: 0 })
})
