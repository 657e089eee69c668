import { afterAll, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { askUpgrade, connect, payloadOf } from '../support/client.ts'
import { launch, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { secret, token } from '../support/token.ts'

const folder = mkdtempSync(join(tmpdir(), 'pgws-mounted-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** Changes a secret as Kubernetes does: another folder with all its files, and one symlink that is swapped. */
function mount(version: string, text: string, certificate: 'server' | 'client'): void {
  mkdirSync(join(folder, version))
  writeFileSync(join(folder, version, 'secret'), text)
  for (const end of ['crt', 'key']) {
    copyFileSync(resolve(import.meta.dir, `../fixtures/${certificate}.${end}`), join(folder, version, `tls.${end}`))
  }
  symlinkSync(version, join(folder, '..new'))
  renameSync(join(folder, '..new'), join(folder, '..data'))
}

/** The name on the certificate that a new connection sees, and the status line of its upgrade. */
const seen = (port: number, signed: string): Promise<[name: string, status: string]> =>
  new Promise((done, failed) => {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false }, () => askUpgrade(socket, `/chat/${signed}`))
    socket.once('data', (answer) => {
      done([String(socket.getPeerCertificate().subject.CN), answer.toString().split('\r\n')[0] ?? ''])
      socket.destroy()
    })
    socket.once('error', failed)
  })

/** What comes within 8 s, or undefined. */
const soon = <T>(promise: Promise<T>): Promise<T | undefined> => Promise.race([promise, Bun.sleep(8000).then(() => undefined)])

test('SIGHUP while the program starts does not end it', async () => {
  // The start waits for what the pipe holds.
  const pipe = join(folder, 'pipe')
  spawnSync('mkfifo', [pipe])
  const starting = launch({ PGWS_DB_URI: `@${pipe}` })
  const writer = await open(pipe, 'w')
  // SIGHUP reads it again.
  writeFileSync(join(folder, 'uri'), database().uri)
  renameSync(join(folder, 'uri'), pipe)
  starting.signal('SIGHUP')
  await writer.write(database().uri)
  await writer.close()
  await starting.logged(/info: listening /)
  expect(await starting.stop()).toBe(0)
})

test('a mounted secret and certificate are taken over without a signal, and faulty ones are not', async () => {
  const fresh = 'fresh-secret-fresh-secret-fresh-secret'
  mount('one', secret, 'server')
  const files = ['secret', 'tls.crt', 'tls.key']
  for (const name of files) symlinkSync(`..data/${name}`, join(folder, name))
  await using program = await start({
    PGWS_DB_URI: database().uri,
    PGWS_JWT_SECRET: `@${join(folder, 'secret')}`,
    PGWS_CERTIFICATE_FILE: join(folder, 'tls.crt'),
    PGWS_KEY_FILE: join(folder, 'tls.key'),
  })
  const ca = readFileSync(resolve(import.meta.dir, '../fixtures/authority.crt'), 'utf8')
  await using client = await connect(`wss://localhost:${program.port}/chat/${await token({ mode: 'rw' })}`, { ca })

  mount('two', 'short', 'client')
  expect(await soon(program.logged(/error: configuration files not taken over .*/))).toContain('PGWS_JWT_SECRET is 5 bytes long')
  expect(await seen(program.port, await token({ mode: 'r' }))).toEqual(['localhost', 'HTTP/1.1 101 Switching Protocols'])

  mount('three', fresh, 'client')
  expect(await soon(program.logged(/info: configuration files read again/))).toBeDefined()
  const signed = await token({ mode: 'r' }, new TextEncoder().encode(fresh))
  expect(await seen(program.port, signed)).toEqual(['postgres', 'HTTP/1.1 101 Switching Protocols'])
  client.send('still here')
  expect(payloadOf(await client.next())).toBe('still here')
  expect(program.stderr().match(/not taken over/g)).toHaveLength(1)
})
