import { afterAll, beforeAll, expect, test } from 'bun:test'
import { connect as connectSocket, createServer, type Socket } from 'node:net'
import { connect, payloadOf } from '../support/client.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { start } from '../support/program.ts'
import { token } from '../support/token.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.stop())

/** Passes everything on, until a text goes to the database: from then on no answer comes back over that connection, until it is cut. */
async function startCutter(text: string) {
  const sockets = new Set<Socket>()
  let cut = (): void => undefined
  const listening = createServer((near) => {
    const far = connectSocket(server.port, '127.0.0.1')
    let tail = ''
    let isDeaf = false
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from)
      from.on('error', () => from.destroy())
      from.on('close', () => to.destroy())
    }
    far.on('data', (chunk) => isDeaf || near.write(chunk))
    near.on('data', (chunk) => {
      tail = (tail + chunk.toString('latin1')).slice(-100_000)
      if (text !== '' && tail.includes(text)) {
        text = ''
        isDeaf = true
        cut = () => near.destroy()
      }
      far.write(chunk)
    })
  })
  await new Promise<void>((ready) => listening.listen(0, '127.0.0.1', ready))
  const address = listening.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return {
    port: address.port,
    cut: () => cut(),
    [Symbol.dispose]: () => {
      listening.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

test('batches whose answers were lost come again, in order and byte for byte as they were, and nothing else does', async () => {
  using cutter = await startCutter('number 1000,')
  await using program = await start({
    PGWS_DB_URI: server.uri.replace(`:${server.port}`, `:${cutter.port}`),
    PGWS_CHECK_LISTENER_INTERVAL: '60000',
  })
  await using client = await connect(`${program.origin}/copies/${await token({ mode: 'rw' })}`)
  const count = 3000
  for (let number = 0; number < count; number++) client.send(`number ${number},`)
  const texts: string[] = []
  let isCut = false
  for (let payload = ''; payload !== `number ${count - 1},`; ) {
    const text = await client.next()
    texts.push(text)
    payload = payloadOf(text)
    if (!isCut && payload === 'number 1000,') {
      isCut = true
      cutter.cut()
    }
  }
  const first = [...new Set(texts)]
  expect(first.map(payloadOf)).toEqual(Array.from({ length: count }, (_, number) => `number ${number},`))
  // What comes again is what no answer had come for: from some message on to that one at least, without a hole.
  expect(texts.length).toBeGreaterThan(count)
  const again = texts.filter((text, index) => texts.indexOf(text) < index).map((text) => first.indexOf(text))
  expect(again).toContain(1000)
  expect(again).toEqual(Array.from({ length: again.length }, (_, index) => (again[0] ?? 0) + index))
})
