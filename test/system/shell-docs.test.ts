/** What the pages do in a shell with curl and openssl works as it stands there. */
import { expect, test } from 'bun:test'
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from '../support/client.ts'
import { blocksFor } from '../support/pages.ts'
import { start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { secret, token } from '../support/token.ts'

const { block, left } = blocksFor('shell-docs')

test('the lines for curl read a channel and post to it', async () => {
  await using program = await start({ PGWS_DB_URI: database().uri })
  const [making, reading, writing] = block('sh', 'base64url')
    .split(/(?=curl )/)
    .map((part) => part.replaceAll('localhost:3000', `127.0.0.1:${program.port}`))
  // The stream is to be open before the message is sent, which people are slow enough for.
  const shell = spawn('sh', ['-c', `${making}${reading}reader=$!\nread -r _\n${writing}\nread -r _\nkill $reader`], {
    env: { PATH: process.env.PATH, PGWS_JWT_SECRET: secret },
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  let seen = ''
  const shown = (text: string): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (seen.includes(text)) resolve()
      }
      shell.stdout.on('data', look)
      look()
    })
  shell.stdout.on('data', (chunk) => {
    seen += chunk
  })
  await shown('retry: 1000')
  shell.stdin.write('\n')
  await shown('"payload":"hello"')
  shell.stdin.end('\n')
  await new Promise((ended) => shell.once('exit', ended))
  expect(seen).toMatch(/^retry: 1000\n\ndata: \{.*"event":"WebsocketMessage","payload":"hello","channel":"chat"\}\n\n$/)
})

test("the README's line posts a message", async () => {
  await using program = await start({ PGWS_DB_URI: database().uri })
  await using client = await connect(`${program.origin}/chat/${await token({ mode: 'r' })}`)
  const line = block('sh', 'hello from a shell').replace('localhost:3000', `127.0.0.1:${program.port}`)
  const env = { PATH: process.env.PATH, TOKEN: await token({ mode: 'w' }) }
  expect(spawnSync('sh', ['-ec', line], { env }).status).toBe(0)
  expect(JSON.parse(await client.next()).payload).toBe('hello from a shell')
})

test('the lines for openssl make a certificate for trying out', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pgws-certificate-'))
  const made = spawnSync('sh', ['-ec', `${block('sh', 'openssl req')}\nenv | grep ^PGWS_`], { cwd: folder, encoding: 'utf8' })
  expect(made.status).toBe(0)
  const files = Object.fromEntries(
    made.stdout.matchAll(/^(PGWS_\w+_FILE)=(.+)$/gm).map(([, name, file = '']) => [name, join(folder, file)]),
  )
  await using program = await start({ PGWS_DB_URI: database().uri, ...files })
  const ca = readFileSync(join(folder, 'server.crt'), 'utf8')
  await using client = await connect(`wss://localhost:${program.port}/chat/${await token({ mode: 'rw' })}`, { ca })
  client.send('over TLS')
  expect(JSON.parse(await client.next()).payload).toBe('over TLS')
  rmSync(folder, { recursive: true })
})

test('each block for this test was run', () => expect(left()).toEqual([]))
