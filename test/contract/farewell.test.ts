import { afterAll, beforeAll, expect, test } from 'bun:test'
import { spawn } from 'node:child_process'
import { connect as connectSocket } from 'node:net'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'
import postgres from 'postgres'
import { askUpgrade, connect, payloadOf, rawConnection, readTexts } from '../support/client.ts'
import { fixture } from '../support/files.ts'
import { listenTo } from '../support/notified.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { start } from '../support/program.ts'
import { token } from '../support/token.ts'

const tls = { PGWS_CERTIFICATE_FILE: fixture('server.crt'), PGWS_KEY_FILE: fixture('server.key') }

let server: Postgres
let sql: postgres.Sql
beforeAll(async () => {
  server = await startPostgres()
  sql = postgres(server.uri, { max: 1 })
})
afterAll(async () => {
  await sql.end()
  await server.stop()
})

test.each(['ws', 'wss'])(
  'on SIGTERM writers that write on over %s all see 1001, and what each got in is what it sent first',
  async (scheme) => {
    const count = 20
    const program = await start({ PGWS_DB_URI: server.uri, ...(scheme === 'wss' ? tls : {}) })
    const channel = `farewell-${scheme}`
    await using notified = await listenTo(sql, (text) => text.includes(channel))
    const url = `${scheme}://localhost:${program.port}/${channel}/${await token({ mode: 'w' })}`
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: fixture('authority.crt') }
    const writers = spawn('node', [resolve(import.meta.dir, '../support/writers.mjs'), url, String(count)], { env })
    const lines = createInterface(writers.stdout)[Symbol.asyncIterator]()
    expect((await lines.next()).value).toBe('writing')
    await notified.reached(1000)
    program.signal('SIGTERM')
    expect(JSON.parse(String((await lines.next()).value))).toEqual(Array(count).fill(1001))
    expect(await program.exited).toBe(0)
    await sql`select 1`
    const inDatabase = notified.texts.map(payloadOf)
    for (let writer = 0; writer < count; writer++) {
      const numbers = inDatabase.filter((text) => text.startsWith(`${writer}-`)).map((text) => Number(text.split('-')[1]))
      expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, number) => number))
    }
  },
)

test('on SIGTERM a reader that is behind gets what waits for it, and then 1001', async () => {
  const program = await start({ PGWS_DB_URI: server.uri, PGWS_SEND_BUFFER_BYTES: '100000000', PGWS_LOG_LEVEL: 'debug' })
  const path = `/behind/${await token({ mode: 'r' })}`
  const reader = rawConnection(program.port, path)
  let read = 0
  readTexts(reader, () => read++)
  let last = Buffer.alloc(0)
  reader.on('data', (chunk: Buffer) => {
    last = Buffer.concat([last, chunk]).subarray(-200)
  })
  await new Promise((opened) => reader.once('data', opened))
  reader.pause()
  await using other = await connect(`${program.origin}${path}`)
  const count = 8000
  await sql`select count(pg_notify('postgres-websockets-listener', json_build_object('channel', 'behind', 'n', n, 'text', repeat('x', 7000))::text))
    from generate_series(1, ${count}::int) as n`
  await other.take(count)
  const gone = new Promise((closed) => reader.once('close', closed))
  program.signal('SIGTERM')
  await program.logged(/(closing a client[\s\S]*){2}/)
  reader.resume()
  await gone
  expect(read).toBe(count)
  const close = last.indexOf(Buffer.from([0x03, 0xe9]))
  expect(last[close - 2]).toBe(0x88)
  expect(await program.exited).toBe(0)
})

test('a client that does not hang up keeps the server no longer than it is to drain', async () => {
  const program = await start({ PGWS_DB_URI: server.uri, PGWS_SHUTDOWN_TIMEOUT: '500' })
  const client = connectSocket({ port: program.port, host: '127.0.0.1', allowHalfOpen: true })
  askUpgrade(client, `/silent/${await token({ mode: 'r' })}`)
  await new Promise((opened) => client.once('data', opened))
  const began = performance.now()
  program.signal('SIGTERM')
  expect(await program.exited).toBe(0)
  expect(performance.now() - began).toBeLessThan(1500)
  client.destroy()
})
