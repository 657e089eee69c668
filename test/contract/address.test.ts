import { describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { resolve } from 'node:path'
import { connect, payloadOf } from '../support/client.ts'
import { fixture } from '../support/files.ts'
import { isOnDeno, launch, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { token } from '../support/token.ts'

const hasIPv6 = Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === '::1'))

function reaches(host: string, port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connectSocket(port, host)
    socket.once('connect', () => {
      socket.destroy()
      done(true)
    })
    socket.once('error', () => done(false))
  })
}

/** PGWS_HOST, and whether it answers on IPv4 and on IPv6 where the machine has both. */
const forms: [string, boolean, boolean][] = [
  ['*', true, true],
  ['*4', true, false],
  ['!4', true, false],
  ['*6', true, true],
  // Deno takes IPv4 as well, whatever it is asked.
  ['!6', isOnDeno, true],
  ['127.0.0.1', true, false],
  ['::1', false, true],
  ['localhost', true, false],
]

// A machine without IPv6 cannot show the forms that need it, nor tell the others apart.
describe.if(hasIPv6)('PGWS_HOST', () => {
  test.each(forms)('%s answers on IPv4: %p, on IPv6: %p', async (host, onIPv4, onIPv6) => {
    await using program = await start({ PGWS_DB_URI: database().uri, PGWS_HOST: host })
    const answers = [await reaches('127.0.0.1', program.port), await reaches('::1', program.port)]
    // What a name leads to is the machine's business: one address at least.
    if (host === 'localhost') expect(answers).toContain(true)
    else expect(answers).toEqual([onIPv4, onIPv6])
  })
})

describe('a port', () => {
  test('that is taken ends the program, which names it', async () => {
    await using first = await start({ PGWS_DB_URI: database().uri })
    const second = launch({ PGWS_DB_URI: database().uri, PGWS_PORT: String(first.port) })
    expect(await second.exited).toBe(1)
    expect(second.stderr()).toContain(`cannot serve PGWS_HOST=127.0.0.1 PGWS_PORT=${first.port}`)
  })
  test('on an address that the machine does not have ends the program', async () => {
    const program = launch({ PGWS_DB_URI: database().uri, PGWS_HOST: '192.0.2.1' })
    expect(await program.exited).toBe(1)
    expect(program.stderr()).toContain('PGWS_HOST=192.0.2.1')
  })
})

test('with a certificate and a key the server speaks TLS', async () => {
  await using program = await start({
    PGWS_DB_URI: database().uri,
    PGWS_CERTIFICATE_FILE: fixture('server.crt'),
    PGWS_KEY_FILE: fixture('server.key'),
    PGWS_ROOT_PATH: resolve(import.meta.dir, '../../client-example'),
  })
  const ca = readFileSync(fixture('authority.crt'), 'utf8')
  await using client = await connect(`wss://localhost:${program.port}/chat/${await token({ mode: 'rw' })}`, { ca })
  client.send('over TLS')
  expect(payloadOf(await client.next())).toBe('over TLS')
  const page = await fetch(`https://localhost:${program.port}/`, { tls: { ca } })
  expect(await page.text()).toContain('<h1>postgres-websockets</h1>')
  await expect(fetch(`http://localhost:${program.port}/`)).rejects.toThrow()
})
