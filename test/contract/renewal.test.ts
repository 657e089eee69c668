import { afterAll, beforeEach, expect, test } from 'bun:test'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { askUpgrade, payloadOf, readTexts } from '../support/client.ts'
import { fixture } from '../support/files.ts'
import { type Program, start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { keyPair, token } from '../support/token.ts'

const folder = mkdtempSync(join(tmpdir(), 'pgws-renewal-'))
afterAll(() => rmSync(folder, { recursive: true }))

const files = { PGWS_CERTIFICATE_FILE: join(folder, 'tls.crt'), PGWS_KEY_FILE: join(folder, 'tls.key') }

function showCertificate(name: 'server' | 'client'): void {
  copyFileSync(fixture(`${name}.crt`), files.PGWS_CERTIFICATE_FILE)
  copyFileSync(fixture(`${name}.key`), files.PGWS_KEY_FILE)
}
beforeEach(() => showCertificate('server'))

async function renew(program: Program): Promise<void> {
  showCertificate('client')
  program.signal('SIGHUP')
  await program.logged(/configuration files read again/)
}

/** A TLS connection on which nothing was asked yet. */
const openTls = (port: number): Promise<Socket> =>
  new Promise((opened, failed) => {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false }, () => opened(socket))
    socket.once('error', failed)
  })

/** Asks for a channel, and once that is answered, in `meanwhile` or after it, notifies the channel: what the connection then receives. */
async function payloadAfter(socket: Socket, channel: string, signed: string, meanwhile?: () => Promise<void>): Promise<string> {
  const answer = new Promise<string>((done) => socket.once('data', (chunk) => done(chunk.toString())))
  const text = new Promise<string>((done) => readTexts(socket, done))
  askUpgrade(socket, `/${channel}/${signed}`)
  await meanwhile?.()
  expect(await answer).toContain('101 Switching Protocols')
  const notification = JSON.stringify({ event: 'WebsocketMessage', channel, payload: 'here' })
  await sql()`select pg_notify('postgres-websockets-listener', ${notification})`
  return payloadOf(await text)
}

test('a connection that is opened before a renewal and upgraded after it receives messages', async () => {
  await using program = await start({ PGWS_DB_URI: database().uri, ...files })
  const channel = unique('renewal')
  const socket = await openTls(program.port)
  await renew(program)
  expect(await payloadAfter(socket, channel, await token({ mode: 'r' }))).toBe('here')
  socket.destroy()
})

test('an upgrade that waits for keys during a renewal receives messages', async () => {
  const { jwk, sign } = await keyPair('ES256', { alg: 'ES256' })
  let release = (): void => undefined
  const released = new Promise<void>((done) => {
    release = done
  })
  let asked = (): void => undefined
  const isAsked = new Promise<void>((done) => {
    asked = done
  })
  const keys = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: async () => {
      asked()
      await released
      return Response.json({ keys: [jwk] })
    },
  })
  const url = `http://127.0.0.1:${keys.port}/jwks`
  await using program = await start({ PGWS_DB_URI: database().uri, PGWS_JWT_SECRET: '', PGWS_JWKS_URL: url, ...files })
  const channel = unique('renewal')
  const socket = await openTls(program.port)
  const signed = await sign({ mode: 'r' })
  const payload = await payloadAfter(socket, channel, signed, async () => {
    await isAsked
    // The server reads what came in the order it came: by now it has the request.
    await openTls(program.port).then((later) => later.destroy())
    await renew(program)
    release()
  })
  expect(payload).toBe('here')
  socket.destroy()
  keys.stop(true)
})
