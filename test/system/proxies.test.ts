import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { connect, payloadOf } from '../support/client.ts'
import { openStream } from '../support/event-source.ts'
import { fixture } from '../support/files.ts'
import { freePort } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

const ca = readFileSync(fixture('authority.crt'), 'utf8')
const deploy = (name: string): string => readFileSync(resolve(import.meta.dir, '../../deploy', name), 'utf8')

interface Place {
  readonly folder: string
  readonly port: number
  /** Where the server listens. */
  readonly server: string
}

/** Each proxy with the project's snippet as it is, but for addresses, names and certificates, and with an access log. */
const proxies = {
  nginx({ folder, port, server }: Place): string[] {
    const snippet = deploy('nginx.conf')
      .replace('127.0.0.1:3000', server)
      .replace('listen 443 ssl', `listen 127.0.0.1:${port} ssl`)
      .replace('example.org;', 'localhost;')
      .replace(/\/etc\/ssl\/certs\/\S+\.crt/, fixture('server.crt'))
      .replace(/\/etc\/ssl\/private\/\S+\.key/, fixture('server.key'))
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      .map((name) => `${name}_temp_path ${folder}/${name};`)
      .join(' ')
    writeFileSync(
      join(folder, 'nginx.conf'),
      `daemon off; pid ${folder}/pid; error_log ${folder}/error.log; events {}\nhttp { access_log ${folder}/access.log; ${paths}\n${snippet}\n}`,
    )
    return ['nginx', '-p', folder, '-e', join(folder, 'error.log'), '-c', join(folder, 'nginx.conf')]
  },
  caddy({ folder, port, server }: Place): string[] {
    const site = `https://localhost:${port} {\n\tbind 127.0.0.1\n\ttls ${fixture('server.crt')} ${fixture('server.key')}`
    const snippet = deploy('Caddyfile')
      .replace('127.0.0.1:3000', server)
      .replace('example.org {', site)
      .replace('log {', `log {\n\t\toutput file ${folder}/access.log`)
    const config = `{\n\tadmin off\n\tauto_https off\n\tstorage file_system ${folder}\n}\n${snippet}`
    writeFileSync(join(folder, 'Caddyfile'), config)
    return ['caddy', 'run', '--adapter', 'caddyfile', '--config', join(folder, 'Caddyfile')]
  },
} as const

let program: Program
beforeAll(async () => {
  program = await start({ PGWS_DB_URI: database().uri, PGWS_TRUSTED_PROXIES: '127.0.0.1' })
})
afterAll(async () => {
  await program.stop()
})

describe.each(['nginx', 'caddy'] as const)('behind %s', (name) => {
  const folder = mkdtempSync(join(tmpdir(), `pgws-${name}-`))
  let proxy: ChildProcess
  let port: number

  beforeAll(async () => {
    port = await freePort()
    const [command = '', ...args] = proxies[name]({ folder, port, server: `127.0.0.1:${program.port}` })
    proxy = spawn(command, args, { stdio: 'ignore', env: { PATH: `${process.env.PATH}:/usr/sbin`, HOME: folder } })
    await until(() => answers(port))
  })
  afterAll(async () => {
    proxy.kill('SIGTERM')
    await new Promise((gone) => proxy.once('exit', gone))
    rmSync(folder, { recursive: true })
  })

  const channels = ['chat', 'rooms/42', 'two words', 'a+b', 'Zürich ☕', '50%', '%2F', 'a?b#c', '//']
  test.each(channels)(
    'the channel %p is the same with a token in the path, as a subprotocol, and without the proxy',
    async (channel) => {
      const given = await token({ mode: 'rw', channels: [channel] })
      const path = encodeURIComponent(channel)
      const protocols = ['pgws', `pgws.token.${given}`]
      await using direct = await connect(`${program.origin}/${path}/${given}`)
      await using inPath = await connect(`wss://localhost:${port}/ws/${path}/${given}`, { ca })
      await using asProtocol = await connect(`wss://localhost:${port}/ws/${path}`, { ca, protocols })
      expect(asProtocol.protocol).toBe('pgws')
      inPath.send('hello')
      for (const client of [direct, inPath, asProtocol]) {
        const message = await client.next()
        expect({ payload: payloadOf(message), channel: JSON.parse(message).channel }).toEqual({ payload: 'hello', channel })
      }
    },
  )

  test('an event stream comes through message by message, and so does what keeps it alive', async () => {
    const given = await token({ mode: 'rw', channels: ['chat'] })
    const headers = { Authorization: `Bearer ${given}` }
    const url = `https://localhost:${port}/ws/chat`
    await using stream = await openStream(url, { ca, headers })
    const post = async (text: string): Promise<number> =>
      (await fetch(url, { method: 'POST', body: text, headers, tls: { ca } })).status
    // Each is there before the next is sent: nobody waits for a buffer to fill.
    for (const text of ['one', 'two', 'x'.repeat(7000)]) {
      expect(await post(text)).toBe(204)
      expect(payloadOf((await stream.next()).data)).toBe(text)
    }
    await stream.comment()
    expect(stream.headers.get('Cache-Control')).toBe('no-store')
    expect(await post('a\0b')).toBe(400)
    await stream.close()
    await program.logged(/client closed .*channels=chat code=1005/)
  })

  test('a refusal comes through with its reason', async () => {
    const answer = await fetch(`https://localhost:${port}/ws/chat/none`, {
      headers: { Upgrade: 'websocket', Connection: 'Upgrade' },
      tls: { ca },
    })
    expect(answer.status).toBe(401)
    expect(await answer.text()).toBe('Malformed token')
  })

  test('the log has the address of the client, whatever it says of itself, and not that of the proxy', async () => {
    const seen = program.stderr().length
    const from = connectSocket({ host: '127.0.0.1', port, localAddress: '127.0.0.2' })
    const socket = connectTls({ socket: from, servername: 'localhost', ca })
    const said = 'Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    socket.write(`GET /ws/chat/none HTTP/1.1\r\n${said}\r\n`)
    await program.logged(/upgrade refused .* address=127\.0\.0\.2 /, seen)
    socket.destroy()
  })

  test('a token that travels as a subprotocol is in no log of the proxy', async () => {
    const given = await token({ mode: 'rw', channels: ['quiet'] })
    const client = await connect(`wss://localhost:${port}/ws/quiet`, { ca, protocols: ['pgws', `pgws.token.${given}`] })
    await client.close()
    const log = () => readFileSync(join(folder, 'access.log'), 'utf8')
    await until(() => log().includes('/ws/quiet'))
    expect(log()).not.toContain(given.split('.')[2] ?? given)
  })
})

const answers = (port: number): Promise<boolean> =>
  new Promise((done) => {
    const socket = connectSocket(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      done(true)
    })
    socket.once('error', () => done(false))
  })
