import { afterAll, beforeAll, expect, test } from 'bun:test'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { binary } from '../support/binary.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { secret } from '../support/token.ts'
import { until } from '../support/until.ts'

const root = resolve(import.meta.dir, '../..')
const folder = mkdtempSync(join(tmpdir(), 'pgws-boot-'))
const sudo = process.getuid?.() === 0 ? [] : ['sudo']
const units = '/usr/lib/systemd/system'

let postgres: Postgres
let unshare: ChildProcess
/** The process that is systemd, as this machine sees it. */
let systemd = ''

beforeAll(async () => {
  spawnSync('chmod', ['755', folder])
  for (const name of ['bin', 'etc', 'units']) mkdirSync(join(folder, name))
  copyFileSync(binary, join(folder, 'bin/postgres-websockets'))
  copyFileSync(join(root, 'deploy/postgres-websockets.service'), join(folder, 'units/postgres-websockets.service'))
  for (const name of ['systemd-journald.service', 'systemd-journald.socket', 'systemd-journald-dev-log.socket'])
    copyFileSync(join(units, name), join(folder, 'units', name))
  for (const name of ['sysinit', 'basic', 'shutdown', 'test'])
    writeFileSync(join(folder, 'units', `${name}.target`), '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n')
  postgres = await startPostgres({ folder: join(folder, 'postgres') })
  const [command = '', ...args] = [...sudo, join(root, 'test/system/boot'), folder]
  unshare = spawn(command, args, { stdio: 'ignore' })
  await until(() => {
    const args = ['--full', '--newest', '--parent', String(unshare.pid), 'systemd --system']
    systemd = spawnSync('pgrep', args, { encoding: 'utf8' }).stdout.trim()
    return systemd !== ''
  }, 20)
  await until(() => inside('systemctl', 'is-active', 'test.target').output === 'active', 50)
})
afterAll(async () => {
  spawnSync(sudo[0] ?? 'kill', [...(sudo.length > 0 ? ['kill'] : []), '-KILL', systemd])
  await new Promise((gone) => unshare.once('exit', gone))
  await postgres.stop('immediate')
  const hierarchy = spawnSync('findmnt', ['-n', '-f', '-t', 'cgroup2', '-o', 'TARGET'], { encoding: 'utf8' }).stdout.trim()
  spawnSync('find', [join(hierarchy, `pgws-test-${unshare.pid}`), '-depth', '-type', 'd', '-exec', 'rmdir', '{}', ';'])
  rmSync(folder, { recursive: true })
})

/** Runs a command where that systemd runs. */
function inside(...command: string[]): { readonly status: number | null; readonly output: string; readonly seconds: number } {
  const began = performance.now()
  const [first = '', ...rest] = [...sudo, 'nsenter', '--all', '--target', systemd, ...command]
  const { status, stdout, stderr } = spawnSync(first, rest, { encoding: 'utf8' })
  return { status, output: `${stdout}${stderr}`.trim(), seconds: (performance.now() - began) / 1000 }
}

const unit = 'postgres-websockets'
const journal = (): string => inside('journalctl', '--no-pager', '--output=cat', `--unit=${unit}`, '--since=-1min').output
const property = (name: string): string => inside('systemctl', 'show', '--value', `--property=${name}`, unit).output
const isActive = (): boolean => property('ActiveState') === 'active'

/** Writes the environment file: that of the project, with a database and a secret, and what a test says. */
function configure(more: Readonly<Record<string, string>> = {}): void {
  const given = {
    PGWS_DB_URI: `host=/test/postgres port=${postgres.port} user=postgres password=${postgres.password}`,
    PGWS_JWT_SECRET: secret,
    ...more,
  }
  const lines = Object.entries(given).map(([name, value]) => `${name}=${value}`)
  const text = readFileSync(join(root, 'deploy/postgres-websockets.env'), 'utf8')
  writeFileSync(join(folder, 'etc/env'), `${text}\n${lines.join('\n')}\n`)
  inside('systemctl', 'reset-failed', unit)
}

test('start is done when notifications arrive, reload keeps the process, and stop drains', () => {
  configure()
  expect(inside('systemctl', 'start', unit)).toMatchObject({ status: 0, output: '' })
  expect(inside('env', 'PGWS_ADMIN_PORT=3001', unit, '--ready').output).toBe('ready')
  const pid = property('MainPID')
  expect(inside('systemctl', 'reload', unit).status).toBe(0)
  expect(property('MainPID')).toBe(pid)
  expect(inside('systemctl', 'stop', unit).status).toBe(0)
  expect(property('Result')).toBe('success')
  expect(journal()).toMatch(/info: listening [\s\S]*info: configuration files read again[\s\S]*info: stopped/)
})

test('a start with a wrong configuration fails within a second or two, with the reason in the journal, and is not tried for ever', async () => {
  configure({ PGWS_PORT: 'eighty' })
  const { status, seconds } = inside('systemctl', 'start', unit)
  expect(status).not.toBe(0)
  expect(seconds).toBeLessThan(2)
  expect(journal()).toContain('PGWS_PORT')
  await until(() => property('ActiveState') === 'failed')
}, 30_000)

test('a process that is killed is started again', async () => {
  configure()
  inside('systemctl', 'start', unit)
  const pid = property('MainPID')
  inside('systemctl', 'kill', '--signal=KILL', '--kill-whom=main', unit)
  await until(() => property('MainPID') !== pid && isActive())
  inside('systemctl', 'stop', unit)
})

test('a start waits for a database that comes up, and takes no longer than it', async () => {
  configure()
  await postgres.stop('immediate')
  const up = Bun.sleep(1500).then(() => postgres.start())
  const [first = '', ...rest] = [...sudo, 'nsenter', '--all', '--target', systemd, 'systemctl', 'start', unit]
  const start = spawn(first, rest)
  const status = await new Promise((done) => start.once('exit', done))
  await up
  expect(status).toBe(0)
  inside('systemctl', 'stop', unit)
})

test('a start that gave up on the database says so, and succeeds by itself once the database is there', async () => {
  configure({ PGWS_RETRIES: '2' })
  await postgres.stop('immediate')
  const { status, seconds } = inside('systemctl', 'start', unit)
  expect(status).not.toBe(0)
  expect(seconds).toBeLessThan(4)
  expect(journal()).toContain('cannot reach the database')
  await postgres.start()
  await until(isActive)
})
