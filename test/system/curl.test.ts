import { expect, test } from 'bun:test'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { secret } from '../support/token.ts'

const readme = readFileSync(resolve(import.meta.dir, '../../README.md'), 'utf8')

test("the README's lines for curl read a channel and post to it", async () => {
  await using program = await start({ PGWS_DB_URI: database().uri })
  const lines = /```sh\n(base64url[^`]*)```/.exec(readme)?.[1] ?? ''
  const [making, reading, writing] = lines
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
