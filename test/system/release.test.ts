import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import about from '../../package.json' with { type: 'json' }
import { database } from '../support/setup.ts'
import { secret } from '../support/token.ts'

const root = resolve(import.meta.dir, '../..')
const release = join(root, 'dist/release')
const folder = mkdtempSync(join(tmpdir(), 'pgws-release-'))
const { version } = about
const archive = (kind: string): string => `postgres-websockets-${version}-${kind}`

function run(command: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    cwd: root,
    env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin`, HOME: process.env.HOME, ...env },
  })
  return { status, stdout, stderr }
}

/** Runs a command as root, whose files a package holds. */
const asRoot = (...command: string[]) => {
  const [first = '', ...rest] = process.getuid?.() === 0 ? command : ['sudo', ...command]
  return run(first, rest)
}

beforeAll(() => {
  const made = run('npm', ['run', '--silent', 'release'])
  if (made.status !== 0) throw new Error(made.stderr)
  for (const kind of kinds) run('tar', ['-xzf', join(release, `${archive(kind)}.tar.gz`), '-C', folder])
}, 300_000)
afterAll(() => {
  asRoot('rm', '-rf', folder)
})

const kinds = ['linux-amd64', 'linux-amd64-musl', 'linux-arm64']

/** How a binary runs here: as it is, and on an emulated processor, the older of which has neither AVX nor BMI. */
const machines: Readonly<Record<string, readonly [kind: string, ...command: string[]]>> = {
  'amd64 as it is here': ['linux-amd64'],
  'an amd64 of 2008': ['linux-amd64', 'qemu-x86_64', '-cpu', 'Nehalem'],
  arm64: ['linux-arm64', 'qemu-aarch64', '-L', '/usr/aarch64-linux-gnu'],
}

function runs(binary: string, emulator: readonly string[]): void {
  const [first = '', ...rest] = [...emulator, binary]
  expect(run(first, [...rest, '--version']).stdout).toBe(`postgres-websockets ${version}\n`)
  const checked = run(first, [...rest, '--check'], { PGWS_DB_URI: database().uri, PGWS_JWT_SECRET: secret, PGWS_PORT: '0' })
  expect(checked).toMatchObject({ status: 0, stdout: expect.stringContaining('✓ LISTEN and NOTIFY') })
}

test('a release holds an archive for each kind of machine, packages, the parts list, and the sums of all of them', () => {
  const files = [
    ...kinds.map((kind) => `${archive(kind)}.tar.gz`),
    `postgres-websockets-${version}.cdx.json`,
    ...['amd64', 'arm64'].map((architecture) => `postgres-websockets_${version}_${architecture}.deb`),
  ]
  expect(readdirSync(release).sort()).toEqual(['CHANGES.md', 'SHA256SUMS', ...files].sort())
  const sums = spawnSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: release, encoding: 'utf8' })
  expect({ status: sums.status, files: sums.stdout.trim().split('\n').sort() }).toEqual({
    status: 0,
    files: files.map((name) => `${name}: OK`).sort(),
  })
  const digests = kinds.map((kind) => Bun.SHA256.hash(readFileSync(join(folder, archive(kind), 'postgres-websockets')), 'hex'))
  expect(new Set(digests).size).toBe(kinds.length)
})

test.each(kinds)('the archive for %s holds the binary, the licences, the sample, the unit and the page', (kind) => {
  const at = join(folder, archive(kind))
  expect(readdirSync(at).sort()).toEqual(
    ['CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE', 'README.md', 'SECURITY.md', 'THIRD-PARTY.md'].concat([
      'client-example',
      'compose.yaml',
      'deploy',
      'docs',
      'postgres-websockets',
      'sample-env',
    ]),
  )
  expect(statSync(join(at, 'postgres-websockets')).mode & 0o777).toBe(0o755)
  expect(readFileSync(join(at, 'client-example/index.html'), 'utf8')).toContain('<h1>postgres-websockets</h1>')
  expect(missingLinks(at)).toEqual([])
  const notices = readFileSync(join(at, 'THIRD-PARTY.md'), 'utf8')
  for (const name of [...Object.keys(about.dependencies), 'Bun', 'LGPL-2'])
    expect(notices).toMatch(new RegExp(`^## ${name}\\b`, 'm'))
})

/** What the README and the pages of a folder link to, and is not there. */
function missingLinks(at: string): string[] {
  const files = ['README.md', 'SECURITY.md', ...readdirSync(join(at, 'docs')).map((name) => `docs/${name}`)]
  const pages = files.filter((name) => name.endsWith('.md'))
  const links = pages.flatMap((file) =>
    [...readFileSync(join(at, file), 'utf8').matchAll(/\]\((?!http|#)([^)#]+)[^)]*\)/g)].map(([, path = '']) =>
      join(dirname(file), path),
    ),
  )
  expect(links.length).toBeGreaterThan(50)
  return links.filter((path) => !existsSync(join(at, path)))
}

test.each(Object.keys(machines))('a binary shows its version and passes its check on %s', (machine) => {
  const [kind = '', ...emulator] = machines[machine] ?? []
  runs(join(folder, archive(kind), 'postgres-websockets'), emulator)
})

test('the binary for musl asks for its loader and libraries, which Debian does not have', () => {
  const { stdout } = run('readelf', [
    '--program-headers',
    '--dynamic',
    join(folder, archive('linux-amd64-musl'), 'postgres-websockets'),
  ])
  expect(stdout).toContain('/lib/ld-musl-x86_64.so.1')
  expect(stdout).toContain('libstdc++.so.6')
})

test('the parts list names the product, the packages and the runtime', () => {
  const list = JSON.parse(readFileSync(join(release, `postgres-websockets-${version}.cdx.json`), 'utf8'))
  expect(list.metadata.component).toMatchObject({ name: 'postgres-websockets', version, type: 'application' })
  const parts = list.components.map(({ name, version }: { name: string; version: string }) => `${name} ${version}`).sort()
  const packages = Object.entries(about.dependencies).map(([name, version]) => `${name} ${version}`)
  expect(parts).toEqual([...packages, `bun ${about.devDependencies.bun}`].sort())
  const uses = list.dependencies.find(({ ref }: { ref: string }) => ref === list.metadata.component['bom-ref'])
  expect(uses.dependsOn).toContain(`bun@${about.devDependencies.bun}`)
})

describe.each(['amd64', 'arm64'])('the package for %s', (architecture) => {
  const target = join(folder, `root-${architecture}`)
  const env = join(target, 'etc/postgres-websockets/env')
  /** dpkg with a root of its own: nothing of this machine is installed. */
  const dpkg = (...args: string[]) =>
    asRoot('dpkg', `--root=${target}`, '--force-script-chrootless,architecture,depends', '--log=/dev/null', ...args)

  beforeAll(() => {
    mkdirSync(join(target, 'var/lib/dpkg/updates'), { recursive: true })
    mkdirSync(join(target, 'var/lib/dpkg/info'))
    for (const name of ['status', 'available']) writeFileSync(join(target, 'var/lib/dpkg', name), '')
    const installed = dpkg('--install', join(release, `postgres-websockets_${version}_${architecture}.deb`))
    if (installed.status !== 0) throw new Error(installed.stderr)
  })

  test('installs a binary that runs', () => {
    const binary = join(target, 'usr/bin/postgres-websockets')
    runs(binary, architecture === 'arm64' ? ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu'] : [])
  })

  test('installs a unit that systemd accepts, an environment file that only root reads, and the licences', () => {
    const unit = join(target, 'usr/lib/systemd/system/postgres-websockets.service')
    const text = readFileSync(unit, 'utf8')
    expect(text).not.toContain('/usr/local')
    const here = join(folder, 'postgres-websockets.service')
    writeFileSync(here, text.replaceAll('/usr/bin/postgres-websockets', join(target, 'usr/bin/postgres-websockets')))
    expect(run('systemd-analyze', ['verify', here])).toEqual({ status: 0, stdout: '', stderr: '' })
    expect(statSync(env)).toMatchObject({ uid: 0, gid: 0, mode: 0o100600 })
    expect(readFileSync(join(target, 'usr/share/doc/postgres-websockets/copyright'), 'utf8')).toContain('## Bun')
    expect(missingLinks(join(target, 'usr/share/doc/postgres-websockets'))).toEqual([])
  })

  test('keeps the environment file when it is removed, and takes it along when it is purged', () => {
    writeFileSync(env, 'PGWS_PORT=3003\n')
    expect(dpkg('--remove', 'postgres-websockets').status).toBe(0)
    expect(existsSync(join(target, 'usr/bin/postgres-websockets'))).toBe(false)
    expect(readFileSync(env, 'utf8')).toBe('PGWS_PORT=3003\n')
    expect(dpkg('--purge', 'postgres-websockets').status).toBe(0)
    expect(existsSync(env)).toBe(false)
  })
})
