import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { payloadOf } from '../support/client.ts'
import { converse, type Event } from '../support/commands.ts'
import { endBackends } from '../support/faults.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { until } from '../support/until.ts'
import { startWitness, WITNESSED, type Witness } from '../support/witness.ts'

let server: Postgres
let witness: Witness
beforeAll(async () => {
  server = await startPostgres({ settings: WITNESSED })
  witness = await startWitness(server)
})
beforeEach(() => witness.clear())
afterAll(() => server.stop())

/** Publishes that may be without an answer at once. */
const IN_FLIGHT = 200

/**
 * Publishes until it is stopped or its connection ends. All of its answers are to be in order.
 *
 * @returns the texts that were acknowledged, and all that were sent.
 */
async function startPublisher(program: Program, name: string) {
  const connection = await converse(program, { claims: { mode: 'w', channel: 'load' }, path: '/' })
  const acknowledged: string[] = []
  const sent: string[] = []
  let isGoing = true
  const send = (): void => {
    const text = `${name}:${sent.length}`
    connection.say({ id: sent.length, command: 'publish', channel: 'load', text })
    sent.push(text)
  }
  const ended = (async () => {
    for (let answered = 0; ; answered++) {
      while (isGoing && sent.length < answered + IN_FLIGHT) send()
      if (answered === sent.length) return
      const answer: Event | undefined = await connection.next().catch(() => undefined)
      if (answer === undefined) return
      expect(answer).toEqual({ id: answered, event: 'Published', channel: 'load' })
      acknowledged.push(sent[answered] ?? '')
    }
  })()
  return {
    acknowledged,
    sent,
    /** Hangs up with publishes in flight. */
    async cut(): Promise<void> {
      isGoing = false
      await connection.client.close()
      await ended
    },
    /** Waits for every answer. */
    async stop(): Promise<void> {
      isGoing = false
      await ended
      await connection.client.close()
    },
  }
}

/** What was committed, and each text once, for a batch whose answer was lost comes again. */
async function committed(): Promise<string[]> {
  return [...new Set((await witness.read()).map(({ notification }) => payloadOf(notification)))]
}

const env = () => ({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: '1000' })

test('clients that are cut with publishes in flight find in the database all that was acknowledged, in order', async () => {
  await using program = await start(env())
  const all: Awaited<ReturnType<typeof startPublisher>>[] = []
  for (let round = 0; round < 10; round++) {
    const publishers = await Promise.all([0, 1, 2].map((index) => startPublisher(program, `${round}-${index}`)))
    all.push(...publishers)
    await until(() => publishers.every(({ acknowledged }) => acknowledged.length > 300))
    await Promise.all(publishers.map((publisher) => publisher.cut()))
  }
  expect(await program.stop()).toBe(0)
  const truth = await committed()
  const there = new Set(truth)
  expect(all.flatMap(({ acknowledged }) => acknowledged).filter((text) => !there.has(text))).toEqual([])
  expect(all.some(({ acknowledged, sent }) => sent.length > acknowledged.length)).toBe(true)
  // What was in flight may be there or not, but nothing is there without what was ahead of it.
  for (const { sent } of all) {
    const own = truth.filter((text) => text.startsWith(`${sent[0]?.split(':')[0]}:`))
    expect(own).toEqual(sent.slice(0, own.length))
  }
}, 60_000)

test('through killed sessions and a restart of PostgreSQL each publish is answered, in order, and is there', async () => {
  await using program = await start(env())
  const publishers = await Promise.all(['a', 'b', 'c'].map((name) => startPublisher(program, name)))
  const goesOn = async (): Promise<void> => {
    const counts = publishers.map(({ acknowledged }) => acknowledged.length)
    await until(() => publishers.every(({ acknowledged }, index) => acknowledged.length > (counts[index] ?? 0) + 100))
  }
  await goesOn()
  for (const side of ['sending', 'listening', undefined, 'sending'] as const) {
    await endBackends(server, side)
    await goesOn()
  }
  await server.stop('immediate')
  await program.logged(/cannot send to the database|listener lost/)
  await server.start()
  await goesOn()
  await Promise.all(publishers.map((publisher) => publisher.stop()))
  const truth = await committed()
  for (const { sent, acknowledged } of publishers) {
    expect(acknowledged).toEqual(sent)
    expect(truth.filter((text) => text.startsWith(`${sent[0]?.split(':')[0]}:`))).toEqual(sent)
  }
}, 60_000)

test('a server that is killed has acknowledged nothing that is not there', async () => {
  const program = await start(env())
  const publishers = await Promise.all(['a', 'b', 'c'].map((name) => startPublisher(program, name)))
  await until(() => publishers.every(({ acknowledged }) => acknowledged.length > 1000))
  program.signal('SIGKILL')
  await Promise.all(publishers.map((publisher) => publisher.stop()))
  const there = new Set(await committed())
  for (const { acknowledged } of publishers) expect(acknowledged.filter((text) => !there.has(text))).toEqual([])
})

test('on SIGTERM a client sees 1001, and what was acknowledged until then is there', async () => {
  const program = await start(env())
  await using client = await converse(program, { claims: { mode: 'w', channel: 'load' }, path: '/' })
  for (let id = 0; id < 2000; id++) client.say({ id, command: 'publish', channel: 'load', text: `drained:${id}` })
  expect(await client.next()).toMatchObject({ id: 0, event: 'Published' })
  program.signal('SIGTERM')
  let answered = 1
  for (;;) {
    const answer = await client.next().catch(() => undefined)
    if (answer === undefined) break
    expect(answer).toMatchObject({ id: answered++, event: 'Published' })
  }
  expect((await client.client.closed).code).toBe(1001)
  expect(await program.exited).toBe(0)
  expect((await committed()).slice(0, answered)).toEqual(Array.from({ length: answered }, (_, id) => `drained:${id}`))
})

test('with the database away, publishes above 64 MiB are refused with BUFFER_FULL in their turn, and the connection stays', async () => {
  await using program = await start(env())
  await using client = await converse(program, { claims: { mode: 'w', channel: 'load' }, path: '/' })
  await server.stop('immediate')
  await program.logged(/listener lost/)
  const text = 'x'.repeat(7000)
  const count = 12_000
  for (let id = 0; id < count; id++) {
    client.say({ id, command: 'publish', channel: 'load', text })
    if (id % 200 === 0) await Bun.sleep(1)
  }
  // What is no publish is answered all the while.
  expect(await client.ask({ command: 'ping' })).toEqual([{ event: 'Pong' }])
  await using other = await converse(program, { claims: { mode: 'w', channel: 'load' }, path: '/' })
  expect(await other.ask({ id: 'o', command: 'publish', channel: 'load', text })).toMatchObject([
    { id: 'o', event: 'Refused', code: 'BUFFER_FULL' },
  ])
  await server.start()
  const answers = await client.take(count)
  expect(answers.map(({ id }) => id)).toEqual(Array.from({ length: count }, (_, id) => id))
  const refused = answers.filter(({ event }) => event === 'Refused')
  expect(refused.length).toBeGreaterThan(1000)
  expect(new Set(refused.map(({ code }) => code))).toEqual(new Set(['BUFFER_FULL']))
  expect((await witness.read()).length).toBeGreaterThanOrEqual(count - refused.length)
  expect(await client.ask({ command: 'publish', channel: 'load', text: 'after' })).toMatchObject([{ event: 'Published' }])
}, 60_000)
