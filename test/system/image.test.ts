import { afterAll, beforeAll, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { connect, payloadOf } from '../support/client.ts'
import { launch } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { token } from '../support/token.ts'

const root = resolve(import.meta.dir, '../..')
const image = mkdtempSync(join(tmpdir(), 'pgws-image-'))
chmodSync(image, 0o755)

beforeAll(() => {
  const made = spawnSync('sh', ['-c', 'umask 077 && exec deploy/image "$0"', image], { cwd: root, encoding: 'utf8' })
  if (made.status !== 0) throw new Error(made.stderr)
  mkdirSync(join(image, 'proc'))
})
afterAll(() => rmSync(image, { recursive: true }))

/** Runs the image's binary as its user in a root that holds nothing but the image's files, and /proc, which every container has. */
function inImage(env: Record<string, string>, ...args: string[]) {
  const script = 'mount --bind /proc "$0/proc" && exec chroot --userspec=65532:65532 "$0" /usr/local/bin/postgres-websockets "$@"'
  const command = ['unshare', '--mount', 'sh', '-c', script, image, ...args]
  const [first = '', ...rest] = process.getuid?.() === 0 ? command : ['sudo', '--preserve-env', ...command]
  return launch(env, rest, first)
}

test('the binary serves from nothing but the files of the image, as nobody special, and its health check works', async () => {
  const env = {
    PGWS_DB_URI: database().uri,
    PGWS_ROOT_PATH: '/home/postgres-websockets/client-example',
    PGWS_META_CHANNEL: 'server-info',
    PGWS_ADMIN_PORT: '0',
  }
  await using program = inImage(env)
  const port = await program.bound()
  await program.logged(/info: listening /)
  await using client = await connect(`ws://127.0.0.1:${port}/chat/${await token({ mode: 'rw' })}`)
  client.send('from a bare root')
  expect(payloadOf(await client.next())).toBe('from a bare root')
  expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toContain('<h1>postgres-websockets</h1>')
  const admin = (await program.logged(/admin port port=\d+/)).split('=')[1] ?? ''
  const ready = inImage({ PGWS_ADMIN_PORT: admin }, '--ready')
  expect(await ready.exited).toBe(0)
})

test('the Containerfile copies that root, runs as its user and checks its health', () => {
  const text = readFileSync(join(root, 'Containerfile'), 'utf8')
  expect(text).toContain('RUN npm run build && deploy/image /image')
  expect(text).toMatch(/FROM scratch\nCOPY --from=build \/image \/\nUSER 65532:65532/)
  expect(text).toMatch(/HEALTHCHECK .* CMD \["\/usr\/local\/bin\/postgres-websockets", "--ready"\]/)
})
