import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { connect, payloadOf } from '../support/client.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { start } from '../support/program.ts'
import { token } from '../support/token.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres({ settings: { max_notify_queue_pages: '64' } })
})
afterAll(() => server.stop())

test("with PostgreSQL's notification queue full, senders wait, nobody is dropped, and all of it arrives in order once there is room", async () => {
  const program = await start({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: '2000' })
  await using client = await connect(`${program.origin}/queue/${await token({ mode: 'rw' })}`)
  // A session that listens and stays in a transaction keeps the queue's tail where it is.
  const holder = postgres(server.uri, { max: 1, onnotice: () => undefined })
  await holder.unsafe('listen anything')
  await holder.unsafe('begin')
  await holder.unsafe('select 1')
  const other = postgres(server.uri, { max: 1, onnotice: () => undefined })
  const fill = async (): Promise<string> => {
    for (;;) await other`select pg_notify('elsewhere', repeat('x', 7000) || random())`
  }
  expect(await fill().catch(({ code }) => code)).toBe('54000')
  for (let index = 0; index < 400; index++) client.send(String(index))
  expect(await Promise.race([program.logged(/cannot send to the database .*code=54000/), client.closed])).toBeString()
  client.send('400')
  await holder.unsafe('commit')
  expect((await client.take(401)).map((text) => Number(payloadOf(text)))).toEqual(
    Array.from({ length: 401 }, (_, index) => index),
  )
  expect(program.stderr()).not.toContain('listener lost')
  await holder.end()
  await other.end()
  await program.stop()
}, 30_000)
