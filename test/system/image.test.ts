import { afterAll, beforeAll, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
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

/** What a builder gets of a clone: all that .dockerignore lets through. */
function copyContext(to: string): string[] {
  const ignored = readFileSync(join(root, '.dockerignore'), 'utf8').split('\n')
  const patterns = ignored.filter((line) => line !== '' && !line.startsWith('#')).map((line) => new Bun.Glob(line))
  cpSync(root, to, {
    recursive: true,
    filter: (path) => !patterns.some((pattern) => pattern.match(relative(root, path))),
  })
  return readdirSync(to)
}

test('the build needs nothing of what the builder does not get, and gets nothing that is of this machine or secret', () => {
  const context = mkdtempSync(join(tmpdir(), 'pgws-context-'))
  const files = copyContext(context)
  expect(files).toEqual(expect.arrayContaining(['Containerfile', 'lib', 'main.ts', 'package-lock.json', 'tools']))
  for (const name of ['.git', '.postgres', 'dist', 'node_modules']) expect(files).not.toContain(name)
  expect(readdirSync(join(context, 'deploy')).filter((name) => name.endsWith('.env'))).toEqual([])
  symlinkSync(join(root, 'node_modules'), join(context, 'node_modules'))
  const file = join(context, 'dist/postgres-websockets')
  const built = spawnSync('tools/release/binary', ['linux-amd64', file], { cwd: context, encoding: 'utf8' })
  expect({ status: built.status, stderr: built.status === 0 ? '' : built.stderr }).toEqual({ status: 0, stderr: '' })
  expect(spawnSync(file, ['--version'], { encoding: 'utf8' }).stdout).toStartWith('postgres-websockets ')
  rmSync(context, { recursive: true })
})

test('the Containerfile builds for the processor asked for, copies that root, runs as its user and checks its health', () => {
  const text = readFileSync(join(root, 'Containerfile'), 'utf8')
  expect(text).toContain('RUN tools/release/binary linux-$TARGETARCH dist/postgres-websockets\n')
  expect(text).toContain('RUN deploy/image /image\n')
  expect(text).toMatch(/FROM scratch\nCOPY --from=image \/image \/\nUSER 65532:65532/)
  expect(text).toMatch(/HEALTHCHECK .* CMD \["\/usr\/local\/bin\/postgres-websockets", "--ready"\]/)
})

test('images and actions are pinned to a version', () => {
  const pinned = /^(scratch|[A-Za-z/-]+:v?\d+\.\d+[\w.-]*|debian:bookworm-\d{8}-slim)$/
  for (const file of ['Containerfile', 'compose.yaml', 'deploy/kubernetes.yaml']) {
    const text = readFileSync(join(root, file), 'utf8')
    const images = [...text.matchAll(/^(?:FROM (?:--platform=\S+ )?| *image: )(\S+)/gm)].map(([, image = '']) => image)
    expect(images).not.toBeEmpty()
    for (const image of images) expect({ file, image }).toEqual({ file, image: expect.stringMatching(pinned) })
  }
  for (const file of readdirSync(join(root, '.github/workflows'))) {
    const text = readFileSync(join(root, '.github/workflows', file), 'utf8')
    for (const [, action = ''] of text.matchAll(/uses: (\S+)/g)) expect(action).toMatch(/@v\d+\.\d+\.\d+$/)
  }
})
