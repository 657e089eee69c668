import { afterAll, beforeAll, expect, test } from 'bun:test'
import { connect as connectSocket, createServer, type Socket } from 'node:net'
import { connect, payloadOf } from '../support/client.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { start } from '../support/program.ts'
import { uriThrough } from '../support/proxy.ts'
import { token } from '../support/token.ts'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
})
afterAll(() => server.stop())

/**
 * Passes everything on, until a text goes to the database. Either it arrives, but from then on no answer comes back over that connection,
 * until it is cut; or it does not arrive, nor anything after it, and the connection is cut when the answers to what was ahead have come.
 */
async function startCutter(text: string, arrives: boolean) {
  const sockets = new Set<Socket>()
  let cut = (): void => undefined
  const listening = createServer((near) => {
    const far = connectSocket(server.port, '127.0.0.1')
    let tail = ''
    let isDeaf = false
    let isMute = false
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
        isDeaf = arrives
        isMute = !arrives
        cut = () => near.destroy()
        if (isMute) setTimeout(cut, 300)
      }
      if (!isMute) far.write(chunk)
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

const MARK = 'number 1000,'
const numbers = Array.from({ length: 3000 }, (_, number) => `number ${number},`)

/** Sends numbered messages through a cutter and reads them back up to the last. */
async function sendThrough(cutter: Awaited<ReturnType<typeof startCutter>>): Promise<string[]> {
  await using program = await start({
    PGWS_DB_URI: uriThrough(server, cutter),
    PGWS_CHECK_LISTENER_INTERVAL: '60000',
  })
  await using client = await connect(`${program.origin}/copies/${await token({ mode: 'rw' })}`)
  for (const text of numbers) client.send(text)
  const texts: string[] = []
  for (let payload = ''; payload !== numbers.at(-1); ) {
    const text = await client.next()
    texts.push(text)
    payload = payloadOf(text)
    // What did not arrive is not read before it is sent again: then there is nothing left to cut.
    if (payload === MARK) cutter.cut()
  }
  return texts
}

test('batches whose answers were lost come again, in order and byte for byte as they were, and nothing else does', async () => {
  using cutter = await startCutter(MARK, true)
  const texts = await sendThrough(cutter)
  const first = [...new Set(texts)]
  expect(first.map(payloadOf)).toEqual(numbers)
  // What comes again is what no answer had come for: from some message on, without a hole, and the mark is among it.
  const again = texts.filter((text, index) => texts.indexOf(text) < index).map((text) => first.indexOf(text))
  expect(again).toContain(numbers.indexOf(MARK))
  expect(again).toEqual(Array.from({ length: again.length }, (_, index) => (again[0] ?? 0) + index))
})

test('batches that were lost on their way are sent again, in order', async () => {
  using cutter = await startCutter(MARK, false)
  expect([...new Set(await sendThrough(cutter))].map(payloadOf)).toEqual(numbers)
})
