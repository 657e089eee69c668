import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { connect, payloadOf } from '../support/client.ts'
import { residentBytes } from '../support/memory.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { start } from '../support/program.ts'
import { token } from '../support/token.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.stop())

test('with the database away, senders are closed with 1013 once 64 MiB wait, memory stays bounded, and all that was accepted arrives in order', async () => {
  const program = await start({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: '1000' })
  const url = `${program.origin}/full/${await token({ mode: 'w' })}`
  await server.stop('immediate')
  await program.logged(/listener lost/)
  const before = residentBytes(program.pid)
  const filler = 'x'.repeat(6000)
  const writers = await Promise.all([connect(url), connect(url), connect(url)])
  let isOpen = true
  const closes = writers.map((writer) => writer.closed)
  void Promise.all(closes).then(() => {
    isOpen = false
  })
  for (let index = 0; isOpen && index < 20_000; index++) {
    for (const [name, writer] of writers.entries()) writer.send(`${name}:${index}:${filler}`)
    if (index % 50 === 49) await Bun.sleep(1)
  }
  for (const { code, reason } of await Promise.all(closes)) {
    expect({ code, reason }).toEqual({ code: 1013, reason: 'The buffer for the database is full: try again later' })
  }
  // The buffer, and as much again for what the runtime keeps of it.
  expect(residentBytes(program.pid) - before).toBeLessThan(3 * 64 * 1024 * 1024)

  const inDatabase: string[] = []
  await server.start()
  const sql = postgres(server.uri, { max: 1, onnotice: () => undefined })
  const { promise: last, resolve } = Promise.withResolvers<void>()
  await sql.listen('postgres-websockets-listener', (text) => {
    inDatabase.push(payloadOf(text))
    if (payloadOf(text) === 'last') resolve()
  })
  const writer = await connect(url)
  await program.logged(/listening again/)
  let sent = false
  // The buffer makes room as it drains.
  while (!sent) {
    writer.send('last')
    sent = await Promise.race([last.then(() => true), Bun.sleep(200).then(() => false)])
  }
  for (const name of writers.keys()) {
    const numbers = inDatabase.filter((text) => text.startsWith(`${name}:`)).map((text) => Number(text.split(':')[1]))
    expect(numbers.length === 0 || numbers.at(-1) === (numbers[0] ?? 0) + numbers.length - 1).toBe(true)
    expect(numbers.every((number, index) => number === (numbers[0] ?? 0) + index)).toBe(true)
  }
  await writer.close()
  await sql.end()
  expect(await program.stop()).toBe(0)
}, 60_000)
