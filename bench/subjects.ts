/** Owns the servers that the bench measures: how each is started, what it uses, and its end. */
import { spawn, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { binary } from '../test/support/binary.ts'
import { openCrowd } from '../test/support/crowd.ts'
import { residentBytes } from '../test/support/memory.ts'
import { secret } from '../test/support/token.ts'

export interface Subject {
  readonly name: string
  readonly command: readonly string[]
}

const here = (name: string): string => resolve(import.meta.dir, name)
export const own: Subject = { name: 'this server', command: [binary] }

const others: readonly Subject[] = [
  { name: 'ceiling', command: [process.execPath, here('ceiling.ts')] },
  { name: 'peer', command: ['node', here('peer.mjs')] },
  {
    name: 'on Deno',
    command: [here('../node_modules/deno/deno'), 'run', '--allow-net', '--allow-env', '--allow-read', here('../main.ts')],
  },
]

/** With another binary of this program in `BENCH_BINARY`, that one alone is measured beside this one: what a change costs, in one run. */
const earlier = process.env.BENCH_BINARY

export const subjects: readonly Subject[] = [own, ...(earlier ? [{ name: 'earlier', command: [earlier] }] : others)]

// What was just written lies in the page cache in larger pieces than what is read from disk, and counts as resident in them.
for (const [program = ''] of subjects.map(({ command }) => command).filter(([program]) => program?.startsWith('/'))) {
  spawnSync('sync', [program])
  spawnSync('dd', [`if=${program}`, 'iflag=nocache', 'count=0'])
}

export interface Running {
  readonly port: number
  /** Seconds of CPU time so far. */
  cpu(): number
  /** Resident bytes. */
  memory(): number
  /** Milliseconds from its start until it said that it listens. */
  readonly startedIn: number
  stop(): Promise<void>
}

/**
 * @param uri of the database. @param access a token for any channel. @param more of the environment.
 * @returns once a client can open a connection.
 */
export async function start(
  { command }: Subject,
  uri: string,
  access: string,
  more: Readonly<Record<string, string>> = {},
): Promise<Running> {
  const [program = '', ...args] = command
  const began = performance.now()
  const env = {
    ...process.env,
    PGWS_DB_URI: uri,
    PGWS_PORT: '0',
    PGWS_HOST: '127.0.0.1',
    PGWS_JWT_SECRET: secret,
    PGWS_LOG_LEVEL: 'warning',
    ...more,
  }
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const port = await new Promise<number>((bound, failed) => {
    child.once('exit', (code) => failed(new Error(`${program} ended with ${code}`)))
    child.stdout.on('data', (chunk) => {
      const found = /Listening on port (\d+)/.exec(String(chunk))
      if (found) bound(Number(found[1]))
    })
  })
  const startedIn = performance.now() - began
  const proc = (name: string): string => readFileSync(`/proc/${child.pid}/${name}`, 'utf8')
  // The first LISTEN may stand later than the port.
  for (;;) {
    try {
      await (await openCrowd(port, [`/started/${access}`])).close()
      break
    } catch {
      await Bun.sleep(5)
    }
  }
  return {
    port,
    // Of all threads, in nanoseconds; the process's own times come in steps of 10 ms.
    cpu: () =>
      readdirSync(`/proc/${child.pid}/task`).reduce(
        (sum, task) => sum + Number(proc(`task/${task}/schedstat`).split(' ')[0]),
        0,
      ) / 1e9,
    memory: () => residentBytes(child.pid),
    startedIn,
    async stop() {
      child.removeAllListeners('exit')
      const gone = new Promise((done) => child.once('exit', done))
      child.kill('SIGKILL')
      await gone
    },
  }
}
