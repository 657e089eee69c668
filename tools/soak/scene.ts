/** Owns what the soak runs: the servers, the network between them and the database, and the faults that befall them. */
import { appendFileSync, copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import postgres from 'postgres'
import { rawConnection } from '../../test/support/client.ts'
import { BLOCKABLE, blockNotify, endBackends, stopBackends } from '../../test/support/faults.ts'
import { DIRECT } from '../../test/support/load.ts'
import type { Postgres } from '../../test/support/postgres.ts'
import { launch, type Program, start } from '../../test/support/program.ts'
import { type Direction, type Link, type Side, startProxy } from '../../test/support/proxy.ts'
import type { Random } from '../../test/support/random.ts'
import { token } from '../../test/support/token.ts'
import { WITNESSED } from '../../test/support/witness.ts'
import { KEPT } from './kept.ts'

/** Where a server is reached. */
export interface Place {
  readonly origin: string
  readonly pid: number
  /** The authority that its certificate is from, where it speaks TLS. */
  readonly ca?: string
}

export interface Scene {
  /** Live from beginning to end; the other is killed and stopped at random. */
  readonly steady: readonly Place[]
  places(): readonly Place[]
  /** What befalls them, by name. Each leaves everything as it found it. */
  readonly faults: Readonly<Record<string, () => Promise<unknown>>>
  stop(): Promise<void>
}

export const SETTINGS = { ...WITNESSED, ...BLOCKABLE, max_connections: '100' }

const fixture = (name: string): string => resolve(import.meta.dir, '../../test/fixtures', name)

/** @param killed is told of a server that did not end in order. */
export async function startScene(database: Postgres, random: Random, killed: (place: Place) => void): Promise<Scene> {
  const { below, pick } = random
  const proxy = await startProxy(database.port)
  const folder = mkdtempSync(join(tmpdir(), 'pgws-soak-'))
  const certificate = join(folder, 'server.crt')
  copyFileSync(fixture('server.crt'), certificate)
  await admin(`create role soak superuser login password '${database.password}'`)
  const env = {
    PGWS_DB_URI: database.uri.replace('//postgres:', '//soak:').replace(/:\d+\//, `:${proxy.port}/`),
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
    PGWS_DATABASE_CHANNELS: `${DIRECT}*`,
    PGWS_JOURNAL: 'True',
    PGWS_JOURNAL_CHANNELS: KEPT,
    // Small, so that much is read from the tables.
    PGWS_JOURNAL_CACHE_BYTES: '200000',
  }
  await launch(env, ['--install']).exited
  const steady = await start(env)
  const secured = await start({ ...env, PGWS_CERTIFICATE_FILE: certificate, PGWS_KEY_FILE: fixture('server.key') })
  const secure: Place = {
    origin: `wss://localhost:${secured.port}`,
    pid: secured.pid,
    ca: readFileSync(fixture('authority.crt'), 'utf8'),
  }
  let other = await start(env)
  const path = `/${await token({ mode: 'r', channels: ['soak-1'] })}`

  async function admin(statement: string): Promise<void> {
    const sql = postgres(database.uri, { max: 1, onnotice: () => undefined })
    await sql.unsafe(statement)
    await sql.end()
  }

  async function restart(mode: 'fast' | 'immediate' | 'kill'): Promise<void> {
    await database.stop(mode)
    await Bun.sleep(below(1500))
    await database.start()
  }

  async function replace(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const gone: Program = other
    if (signal === 'SIGKILL') killed(gone)
    gone.signal(signal)
    if ((await gone.exited) !== 0) killed(gone)
    other = await start(env)
  }

  async function asleep({ pid }: Place): Promise<void> {
    process.kill(pid, 'SIGSTOP')
    await Bun.sleep(200 + below(1500))
    process.kill(pid, 'SIGCONT')
  }

  /** Something happens to one connection, of several. */
  const toOne = (side: Side, strike: (link: Link) => void) => async (): Promise<void> => {
    const links = proxy.links(side)
    if (links.length > 0) strike(pick(links))
  }

  /** What a session of the server's role is not to have. */
  const underSetting = (setting: string) => async (): Promise<void> => {
    await admin(`alter role soak set ${setting}`)
    await endBackends(database)
    await Bun.sleep(2500)
    await admin('alter role soak reset all')
    await endBackends(database)
  }

  const somewhere = (): Direction | undefined => pick(['up', 'down', undefined])

  return {
    steady: [steady, secure],
    places: () => [steady, secure, other],
    faults: {
      'LISTEN killed': () => endBackends(database, 'listening'),
      'sender killed': () => endBackends(database, 'sending'),
      'all sessions killed': () => endBackends(database),
      'restarted fast': () => restart('fast'),
      'restarted at once': () => restart('immediate'),
      'database killed': () => restart('kill'),
      'network gone': async () => {
        proxy.swallow()
        await Bun.sleep(200 + below(2500))
        proxy.pass()
      },
      'listener half open': toOne('listening', (link) => link.swallow(somewhere())),
      'sender half open': toOne('sending', (link) => link.swallow(somewhere())),
      'listener reset': toOne('listening', (link) => link.reset()),
      'sender reset': toOne('sending', (link) => link.reset()),
      'listener slow': toOne('listening', (link) => link.delay(below(400), somewhere())),
      'sender slow': toOne('sending', (link) => link.delay(below(400), somewhere())),
      'answers cut off': async () => {
        const links = proxy.links('sending')
        for (const link of links) link.swallow('down')
        await Bun.sleep(5 + below(100))
        for (const link of links) link.reset()
      },
      'NOTIFY blocked': async () => {
        const release = await blockNotify(database)
        await Bun.sleep(500 + below(3000))
        await release()
      },
      'backends out of breath': async () => {
        const goOn = await stopBackends(database, pick(['listening', 'sending', undefined]))
        await Bun.sleep(200 + below(2000))
        goOn()
      },
      'idle sessions ended': underSetting(`idle_session_timeout = '300ms'`),
      'statements timed out': underSetting(`statement_timeout = '1ms'`),
      'certificate renewed': async () => {
        appendFileSync(certificate, '\n')
        secured.signal('SIGHUP')
      },
      'server stopped': () => replace('SIGTERM'),
      'server killed': () => replace('SIGKILL'),
      'server asleep': () => asleep(steady),
      'server with TLS asleep': () => asleep(secure),
      'readers stalled': async () => {
        const sockets = Array.from({ length: 20 }, () => rawConnection(steady.port, path).pause())
        await Bun.sleep(below(3000))
        for (const socket of sockets) socket.destroy()
      },
    },
    async stop() {
      await Promise.all([steady, secured, other].map((program) => program.stop()))
      proxy[Symbol.dispose]()
      rmSync(folder, { recursive: true })
    },
  }
}
