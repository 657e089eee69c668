import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { parse } from '../../lib/config/config.ts'
import { createLog } from '../../lib/log.ts'
import { runtime } from '../../lib/runtime/bun.ts'
import { createServer } from '../../lib/server.ts'
import { connect, frame, rawConnection } from '../support/client.ts'
import { openStream } from '../support/event-source.ts'
import { start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { secret, token } from '../support/token.ts'

const PING = 0x89
const PONG = 0xa

/** Resolves when a ping arrives; the frames of these tests never split over a read. */
const pinged = (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    socket.on('data', (chunk: Buffer) => {
      if (chunk[0] === PING) resolve()
    })
  })

test(
  'a ping goes to each client at least every 30 s, busy or idle, and a comment to each event stream',
  async () => {
    await using program = await start({ PGWS_DB_URI: database().uri })
    const busyChannel = unique('busy')
    const began = Date.now()
    const idle = rawConnection(program.port, `/idle/${await token({ mode: 'r' })}`)
    const busy = rawConnection(program.port, `/${busyChannel}/${await token({ mode: 'r' })}`)
    const traffic = setInterval(() => void sql().notify('postgres-websockets-listener', `{"channel":"${busyChannel}"}`), 200)
    await using stream = await openStream(`http://127.0.0.1:${program.port}/idle/${await token({ mode: 'r' })}`)
    const [, , comment] = await Promise.all([pinged(idle), pinged(busy), stream.comment()])
    expect(comment).toBe('')
    clearInterval(traffic)
    expect(Date.now() - began).toBeLessThan(30_000)
    for (const socket of [idle, busy]) socket.destroy()
  },
  { timeout: 40_000 },
)

/** A server in this process, which pings every 100 ms, and the lines of its log. */
async function startQuick() {
  const config = parse(
    { PGWS_DB_URI: database().uri, PGWS_JWT_SECRET: secret, PGWS_PORT: '0', PGWS_HOST: '127.0.0.1' },
    readFileSync,
    'me',
  )
  if ('faults' in config) throw new Error(config.faults.join())
  const lines: string[] = []
  const server = await createServer({
    config,
    runtime,
    usage: () => ({ residentBytes: 0, cpuSeconds: 0, startedAt: 0, droppedLogLines: 0 }),
    log: createLog({ write: (line) => lines.push(line) }),
    version: '0',
    lost: () => undefined,
    pingEvery: 100,
  })
  await server.start()
  return { server, lines }
}

test('a client that answers no ping is dropped after some rounds, and one that answers stays', async () => {
  const { server, lines } = await startQuick()
  const path = `/chat/${await token({ mode: 'r' })}`
  await using _answering = await connect(`ws://127.0.0.1:${server.port}${path}`)
  const other = rawConnection(server.port, path)
  other.on('data', (chunk: Buffer) => {
    if (chunk[0] === PING) other.write(frame(PONG, Buffer.alloc(0)))
  })
  const silent = rawConnection(server.port, path)
  silent.resume()
  const began = Date.now()
  await new Promise((dropped) => silent.once('close', dropped))
  expect(Date.now() - began).toBeGreaterThan(250)
  // Four rounds: with those of 15 s, the 60 s that are promised.
  expect(Date.now() - began).toBeLessThan(1000)
  expect(lines.join('\n')).toContain('dropped a client that answers no ping')
  expect(other.destroyed).toBe(false)
  expect(lines.filter((line) => line.includes('answers no ping'))).toHaveLength(1)
  other.destroy()
  await server.stop()
})

test('a token that ends after many rounds of pings ends its connection then', async () => {
  const { server } = await startQuick()
  const exp = Date.now() / 1000 + 0.8
  const client = await connect(`ws://127.0.0.1:${server.port}/chat/${await token({ mode: 'r', exp })}`)
  const staying = await connect(`ws://127.0.0.1:${server.port}/chat/${await token({ mode: 'r', exp: exp + 3600 })}`)
  const end = await Promise.race([client.closed, Bun.sleep(2000)])
  expect(end).toEqual({ code: 3001, reason: 'JWT expired' })
  expect(Date.now() / 1000).toBeGreaterThanOrEqual(exp)
  await staying.close(1000)
  await server.stop()
})

test('an event stream can answer no ping, and is kept', async () => {
  const { server, lines } = await startQuick()
  const stream = await openStream(`http://127.0.0.1:${server.port}/chat/${await token({ mode: 'r' })}`)
  for (let round = 0; round < 8; round++) await stream.comment()
  expect(lines.join('\n')).not.toContain('answers no ping')
  await stream.close()
  await server.stop()
})
