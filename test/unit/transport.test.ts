import { expect, test } from 'bun:test'
import { parseConninfo } from '../../lib/database/conninfo.ts'
import { openTransport } from '../../lib/database/transport.ts'
import { noFile } from '../support/files.ts'

/** Asks a server for TLS which answers as it is told. @returns whether the transport is used all the same, or what is wrong. */
async function ask(answer: string, sslmode: string): Promise<string> {
  const server = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data: (socket) => void socket.write(answer) } })
  const conninfo = parseConninfo(`postgres://u@127.0.0.1:${server.port}/d?sslmode=${sslmode}&connect_timeout=1`, {}, noFile, 'me')
  const [host] = conninfo.hosts
  if (!host) throw new Error('no host')
  const outcome = await openTransport(conninfo, host, true).then(
    (transport) => {
      transport.destroy()
      return 'used as it is'
    },
    (error: Error) => error.message,
  )
  server.stop(true)
  return outcome
}

test('a server without TLS is spoken to as it is with sslmode=prefer alone', async () => {
  expect(await ask('N', 'prefer')).toBe('used as it is')
  expect(await ask('N', 'require')).toBe('has no TLS, but sslmode=require wants it')
})

test('text that comes before TLS was set up is taken for nobody', async () => {
  for (const answer of ['Sinjected', 'Ninjected'])
    for (const mode of ['prefer', 'require']) expect(await ask(answer, mode)).toBe('sent text before TLS was set up')
})

test('a connection that is reset before anybody listens for its faults ends no process', async () => {
  const server = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data: (socket) => socket.terminate() } })
  const conninfo = parseConninfo(`postgres://u@127.0.0.1:${server.port}/d`, {}, noFile, 'me')
  const [host] = conninfo.hosts
  if (!host) throw new Error('no host')
  const transport = await openTransport(conninfo, host, false)
  const closed = new Promise((resolve) => transport.once('close', resolve))
  expect(() => transport.emit('error', new Error('read ECONNRESET'))).not.toThrow()
  transport.resume().write('x')
  await closed
  server.stop(true)
})
