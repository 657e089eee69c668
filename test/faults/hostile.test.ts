import { expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, payloadOf, request } from '../support/client.ts'
import { residentBytes } from '../support/memory.ts'
import { start } from '../support/program.ts'
import { createRandom } from '../support/random.ts'
import { database } from '../support/setup.ts'
import { now, token, tokenOfText } from '../support/token.ts'

/** Milliseconds. `npm run fuzz` goes on for long; `FUZZ_SEED` repeats a run. */
const DURATION = Number(process.env.FUZZ_SECONDS ?? 6) * 1000

const seed = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31))
const { below: random, pick } = createRandom(seed)
const noise = (length: number): Buffer => Buffer.from(Array.from({ length }, () => random(256)))

const b64 = (text: string | Uint8Array): string => Buffer.from(text).toString('base64url')
const names = [
  'chat',
  '__proto__',
  'constructor',
  '%00',
  '%ff',
  'a%2Fb',
  '🦄',
  "'; drop table x; --",
  'x'.repeat(63),
  'x'.repeat(64),
  '..',
  '%2e%2e',
  '',
]
const claims = [
  '{}',
  '[]',
  'null',
  '{"mode":"rw"',
  '{"mode":"rw","exp":1e999}',
  '{"mode":"rw","exp":-1}',
  '{"mode":"rw","channels":{"length":1}}',
  '{"mode":"rw","channel":"\\u0000"}',
  `{"mode":"rw","deep":${'['.repeat(10_000)}${']'.repeat(10_000)}}`,
  `{"mode":"rw","big":"${'x'.repeat(100_000)}"}`,
  '{"__proto__":{"mode":"rw"}}',
  '{"mode":"rw","exp":"9999999999"}',
]
const headers = [
  '{"alg":"none"}',
  '{"alg":"HS256","crit":["b64"],"b64":false}',
  '{"alg":"HS256","jku":"http://127.0.0.1:1/"}',
  '{"alg":["HS256"]}',
  '{"alg":"HS256","kid":{"a":1}}',
  '{}',
  'x',
]

/** A token that lets nobody in: unsigned, wrongly signed, or signed and without leave. */
const badToken = (): string =>
  pick([
    () =>
      tokenOfText(
        pick([
          '{}',
          '[]',
          'null',
          '{"mode":"x"}',
          '{"mode":"rw","exp":1}',
          '{"mode":"rw","channels":[]}',
          '{"__proto__":{"mode":"rw"}}',
        ]),
      ),
    () => `${b64(pick(headers))}.${b64(pick(claims))}.${b64(noise(32))}`,
    () => `${b64(pick(headers))}.${b64(pick(claims))}.`,
    () => noise(random(60)).toString('base64url'),
    () => '.'.repeat(random(6)),
  ])()

/** What lies in the root: links out of it, no files at all, and one of 100 GB. */
const files = ['out', 'folder-out', 'folder-out/passwd', 'zero', 'pipe', 'huge', 'fine.txt']

function makeRoot(): string {
  const root = mkdtempSync(join(tmpdir(), 'pgws-hostile-'))
  symlinkSync('/etc/passwd', join(root, 'out'))
  symlinkSync('/etc', join(root, 'folder-out'))
  symlinkSync('/dev/zero', join(root, 'zero'))
  spawnSync('mkfifo', [join(root, 'pipe')])
  writeFileSync(join(root, 'huge'), '')
  truncateSync(join(root, 'huge'), 100e9)
  writeFileSync(join(root, 'fine.txt'), 'fine')
  return root
}

const target = (): string =>
  pick([
    () => `/${pick(names)}/${badToken()}`,
    () => `/${badToken()}`,
    () => `/${pick(['%2e%2e/', '..%2f', '%5c', './', '.env', '//'])}${pick(names)}`,
    () =>
      `/${noise(random(40))
        .toString('latin1')
        .replaceAll(/[\r\n ]/g, '')}`,
    () => `/${'a/'.repeat(random(2000))}`,
    () => `/${pick(['', '%2e%2e%2f', './/', 'folder%2f', '%2f'])}${pick(files)}`,
  ])()

const attack = (): Buffer =>
  pick([
    () =>
      Buffer.from(
        `GET ${target()} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: pgws, pgws.token.${badToken()}\r\n\r\n`,
      ),
    () => Buffer.from(`${pick(['GET', 'HEAD', 'POST', 'TRACE', 'PRI'])} ${target()} HTTP/1.${random(3)}\r\nHost: x\r\n\r\n`),
    () => Buffer.from(`GET / HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(random(100_000))}\r\n\r\n`),
    () =>
      Buffer.from(
        `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n`,
      ),
    () => noise(random(500)),
  ])()

/** A frame that may break every rule of RFC 6455 section 5. */
function badFrame(): Buffer {
  const length = pick([0, 1, 125, 126, 200, 70_000])
  const head = [random(256), 0x80 * random(2)]
  const size =
    length < 126
      ? [(head[1] ?? 0) | length]
      : length < 65_536
        ? [(head[1] ?? 0) | 126, length >> 8, length & 255]
        : [(head[1] ?? 0) | 127, 0, 0, 0, 0, 0, length >> 16, (length >> 8) & 255, length & 255]
  return Buffer.concat([Buffer.from([head[0] ?? 0, ...size]), noise(4), noise(random(length + 1))])
}

/** Connections that send a request letter by letter, and never its end. Resolves when the server has ended all of them. */
async function dawdle(port: number, count: number): Promise<void> {
  const sockets = Array.from({ length: count }, () => connectSocket(port, '127.0.0.1'))
  const timer = setInterval(() => {
    for (const socket of sockets) if (!socket.destroyed) socket.write('y')
  }, 500)
  await Promise.all(
    sockets.map((socket) => {
      socket.on('error', () => socket.destroy())
      socket.write('GET / HTTP/1.1\r\nHost: x\r\nX: ')
      return new Promise((closed) => socket.once('close', closed))
    }),
  )
  clearInterval(timer)
}

/** Writes some bytes and resolves with what came back once the other side has closed, or after a while. */
function send(port: number, parts: readonly Buffer[]): Promise<string> {
  return new Promise((done) => {
    const socket = connectSocket(port, '127.0.0.1')
    let text = ''
    const finish = (): void => {
      socket.destroy()
      done(text)
    }
    socket.setTimeout(100, finish)
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      // Of the huge file, no more.
      if (text.length > 100_000) finish()
    })
    socket.on('error', finish)
    socket.on('close', finish)
    for (const part of parts) socket.write(part)
  })
}

test(
  `garbage on every way in (FUZZ_SEED=${seed}) opens nothing that it should not, breaks nothing and leaks nothing`,
  async () => {
    const root = makeRoot()
    const program = await start({ PGWS_DB_URI: database().uri, PGWS_ROOT_PATH: root })
    const good = `GET /chat/${await token({ mode: 'rw', exp: now() + 3600 })} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n`
    const began = Date.now()
    const end = began + DURATION
    const dawdled = dawdle(program.port, 200)
    let memory = 0
    let tries = 0
    while (Date.now() < end) {
      const attacks = Array.from({ length: 50 }, () =>
        random(2)
          ? send(program.port, [attack(), attack()]).then((answer) =>
              expect({ seed, let: answer.includes(' 101 ') }).toEqual({ seed, let: false }),
            )
          : send(program.port, [Buffer.from(good), ...Array.from({ length: random(4) + 1 }, badFrame)]),
      )
      const answers = await Promise.all(attacks)
      tries += answers.length
      // What it needs for all this, it has taken by now.
      if (memory === 0 && Date.now() - began > DURATION / 3) memory = residentBytes(program.pid)
      for (const answer of answers) if (typeof answer === 'string') expect(answer).not.toMatch(/root:x:| {4}at /)
    }
    const client = await connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)
    client.send('still here')
    let text = ''
    while (!text.includes('still here')) text = payloadOf(await client.next())
    await client.close()
    await dawdled
    expect(tries).toBeGreaterThan(100)
    expect(residentBytes(program.pid) - memory).toBeLessThan(64 * 1024 * 1024)
    const statuses = await Promise.all(files.map((name) => request(program.port, 'HEAD', `/${name}`)))
    expect(statuses.map(({ status }) => status)).toEqual([403, 404, 403, 403, 404, 200, 200])
    expect(await program.stop()).toBe(0)
    expect(program.stderr()).not.toMatch(/request failed|error:|panic/)
    rmSync(root, { recursive: true })
  },
  DURATION + 30_000,
)
