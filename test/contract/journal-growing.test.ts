/** Messages that grow when they are written in a client's form: one may be longer than all that may wait for a slow reader. */
import { expect, test } from 'bun:test'
import { connect, type Socket } from 'node:net'
import { adminOf, metric } from '../support/admin.ts'
import { askUpgrade } from '../support/client.ts'
import { converse } from '../support/commands.ts'
import { withJournalServer } from '../support/journal-server.ts'
import { unique } from '../support/setup.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

const server = withJournalServer({ PGWS_SEND_BUFFER_BYTES: '16384', PGWS_ADMIN_PORT: '0' })

const LENGTH = 1_048_576

const forms = [
  {
    form: 'a text of pgws.json',
    character: '\u0001',
    grown: '\\u0001',
    ask: (socket: Socket, path: string) =>
      askUpgrade(socket, path, undefined, 'HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-WebSocket-Protocol: pgws.json\r\n'),
  },
  {
    form: 'an event of a stream',
    character: '\n',
    grown: 'data: \n',
    ask: (socket: Socket, path: string) =>
      void socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n`),
  },
]

test.each(forms)('a message that is several times longer as $form drops no reader', async ({ character, grown, ask }) => {
  const { program } = server
  const [channel, other] = [unique('growing'), unique('other')]
  const path = `/${channel}/${await token({ mode: 'r' })}`
  const admin = await adminOf(program)
  await using reader = await converse(program, { path: `/${other}` })
  const publish = (to: string, of: string) => server.journal.sql`select pgws.publish(${to}, repeat(${of}, ${LENGTH}::int))`

  /** Reads nothing until another's message had the server look for slow readers. @returns how often it got the character. */
  async function read(query: string, publishFirst: boolean): Promise<number> {
    const delivered = await metric(admin, 'pgws_message_bytes_delivered_total')
    const socket = connect(program.port, '127.0.0.1')
    ask(socket, path + query)
    const chunks: Buffer[] = []
    let bytes = 0
    const keep = (chunk: Buffer): void => {
      chunks.push(chunk)
      bytes += chunk.length
    }
    await new Promise<void>((opened) =>
      socket.once('data', (chunk: Buffer) => {
        socket.pause()
        keep(chunk)
        opened()
      }),
    )
    if (publishFirst) await publish(channel, character)
    await until(async () => (await metric(admin, 'pgws_message_bytes_delivered_total')) > delivered + LENGTH)
    await publish(other, 'x')
    await reader.next()
    const times = () => Buffer.concat(chunks).toString('latin1').split(grown).length - 1
    const ended = new Promise<void>((done) => socket.once('close', () => done()))
    const whole = new Promise<void>((done) =>
      socket.on('data', (chunk: Buffer) => {
        keep(chunk)
        if (bytes > grown.length * LENGTH && times() >= LENGTH) done()
      }),
    )
    socket.resume()
    await Promise.race([whole, ended])
    socket.destroy()
    return times()
  }

  expect(await read('', true)).toBeGreaterThanOrEqual(LENGTH)
  expect(await read('?last=1', false)).toBeGreaterThanOrEqual(LENGTH)
  expect(await metric(admin, 'pgws_slow_readers_disconnected_total')).toBe(0)
})
