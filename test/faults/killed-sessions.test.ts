import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { connect } from '../support/client.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { start } from '../support/program.ts'
import { token } from '../support/token.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.stop())

test('sessions killed 20 times under load: every message of every sender arrives in order, copies are identical, and what SQL sent is there or told as missed', async () => {
  const program = await start({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: '1000' })
  const sql = postgres(server.uri, { max: 1, onnotice: () => undefined })
  const url = `${program.origin}/${await token({ mode: 'rw', channels: ['load'] })}`
  const reader = await connect(url, { protocols: ['pgws'] })
  const writers = await Promise.all(Array.from({ length: 4 }, () => connect(url)))

  let isLoading = true
  const counts = writers.map(() => 0)
  const writing = writers.map(async (writer, name) => {
    while (isLoading) {
      for (let index = 0; index < 5; index++) {
        writer.send(`${name}:${counts[name] ?? 0}`)
        counts[name] = (counts[name] ?? 0) + 1
      }
      await Bun.sleep(5)
    }
  })
  let bySql = 0
  const notifying = (async () => {
    while (isLoading) {
      await sql`select pg_notify('postgres-websockets-listener', json_build_object('channel', 'load', 'payload', ${`sql:${bySql++}`}::text, 'at', extract(epoch from clock_timestamp()))::text)`
      await Bun.sleep(5)
    }
  })()

  const admin = postgres(server.uri, { max: 1 })
  for (let round = 0; round < 20; round++) {
    const side = ['%pg_listening_channels%', '%pg_notify(%', '%pg%'][round % 3] ?? ''
    const before = program.stderr().length
    await admin`select pg_terminate_backend(pid) from pg_stat_activity
      where application_name = 'postgres-websockets' and query like ${side} and pid <> pg_backend_pid()`
    if (round % 3 !== 1) await program.logged(/listening again/, before)
    await Bun.sleep(60)
  }
  isLoading = false
  await Promise.all([...writing, notifying])
  writers[0]?.send('end')

  const texts: string[] = []
  while (!texts.at(-1)?.includes('"payload":"end"')) texts.push(await reader.next())
  const missed = texts.map((text) => JSON.parse(text)).filter(({ event }) => event === 'MessagesMissed')
  expect(missed.length).toBeGreaterThan(10)
  /** A sender's messages as the reader got them, without copies, which are the same to the letter: number and time of sending. */
  const of = (
    sender: string,
    time: (message: { claims: { message_delivered_at: number }; at: number }) => number,
  ): { number: number; at: number }[] =>
    [...new Set(texts.filter((text) => new RegExp(`"payload" ?: ?"${sender}:`).test(text)))].map((text) => {
      const message = JSON.parse(text)
      return { number: Number(message.payload.split(':')[1]), at: time(message) }
    })
  const check = (sender: string, total: number, received: { number: number; at: number }[]): void => {
    expect(received.length).toBeGreaterThan(total / 2)
    for (const [index, current] of received.entries()) {
      const previous = received[index - 1] ?? { number: -1, at: 0 }
      expect({ sender, isLater: current.number > previous.number }).toEqual({ sender, isLater: true })
      // Where one is missing, the reader was told of a time that it fell into.
      if (current.number === previous.number + 1) continue
      const told = missed.some(({ from, to }) => from <= current.at && to >= previous.at)
      expect({ sender, after: previous.number, told }).toEqual({ sender, after: previous.number, told: true })
    }
  }
  for (const name of writers.keys()) {
    check(
      String(name),
      counts[name] ?? 0,
      of(String(name), ({ claims }) => claims.message_delivered_at),
    )
  }
  check(
    'sql',
    bySql,
    of('sql', ({ at }) => at),
  )
  for (const client of [reader, ...writers]) await client.close()
  await sql.end()
  await admin.end()
  await program.stop()
}, 60_000)
