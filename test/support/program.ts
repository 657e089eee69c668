/** Owns running the program as a user does: the compiled binary, its environment, its output, its exit. */
import { type ChildProcess, spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { within } from '../../lib/waiting.ts'
import { binary } from './binary.ts'
import { atEnd } from './ending.ts'
import { secret } from './token.ts'

const root = resolve(import.meta.dir, '../..')

/** The program on Deno, with what leave it needs: beside the least, a unix-domain socket takes --allow-write, the user's name --allow-sys. */
const onDeno = [
  resolve(root, 'node_modules/deno/deno'),
  'run',
  '--allow-net',
  '--allow-env',
  '--allow-read',
  ...(process.env.PGWS_TEST_DENO ?? '').split(' ').filter((flag) => flag.startsWith('--')),
  resolve(root, 'main.ts'),
]

/** Whether the tests are for the program on Deno. */
export const isOnDeno = process.env.PGWS_TEST_DENO !== undefined

/** How the program is run, for a test that wraps it in a shell. */
export const commandLine = isOnDeno ? onDeno : [binary]

export interface Program {
  readonly port: number
  readonly pid: number
  /** `ws://127.0.0.1:PORT` */
  readonly origin: string
  stdout(): string
  stderr(): string
  /** Resolves when standard error holds the pattern, counted from its beginning or behind `after` characters. */
  logged(pattern: RegExp, after?: number): Promise<string>
  /** The same of standard output. */
  printed(pattern: RegExp, after?: number): Promise<string>
  signal(name: NodeJS.Signals): void
  /** The exit code, or the signal that ended it. */
  readonly exited: Promise<number | NodeJS.Signals>
  /** Ends it with SIGTERM and returns its exit code. */
  stop(): Promise<number | NodeJS.Signals>
  [Symbol.asyncDispose](): Promise<void>
}

export type Environment = Readonly<Record<string, string | undefined>>

/** The program gets no home of anyone, whose .pgpass it would read; npm needs one. */
const inherited = (command: string) => ({ PATH: process.env.PATH, HOME: command === binary ? '/nonexistent' : process.env.HOME })

/** Milliseconds for the last output of a process that has exited. */
const CLOSE_LIMIT = 1000

/** Starts the program without waiting for anything. A free port and the tests' secret are given unless the environment says otherwise. */
export function launch(
  env: Environment,
  args: readonly string[] = [],
  command = binary,
): Omit<Program, 'port' | 'origin'> & { bound(): Promise<number> } {
  const [program = '', ...flags] = command === binary && isOnDeno ? onDeno : [command]
  const child = spawn(program, [...flags, ...args], {
    env: {
      ...inherited(command),
      ...(isOnDeno ? { DENO_DIR: join(tmpdir(), 'pgws-deno') } : {}),
      PGWS_PORT: '0',
      PGWS_HOST: '127.0.0.1',
      PGWS_JWT_SECRET: secret,
      ...env,
    } as NodeJS.ProcessEnv,
    stdio: ['ignore', 'pipe', 'pipe'],
    // A process group of its own, as a shell gives it, which a terminal's signals go to.
    detached: command !== binary,
  })
  running.add(child)
  const stdout = watch(child.stdout)
  const stderr = watch(child.stderr)
  const closed = new Promise<void>((done) => child.once('close', () => done()))
  const exited = new Promise<number | NodeJS.Signals>((done) =>
    child.once('exit', async (code, signal) => {
      running.delete(child)
      // All that it wrote is here then. Bun 1.4 now and then never says so.
      await within(CLOSE_LIMIT, closed)
      stdout.end()
      stderr.end()
      done(code ?? signal ?? -1)
    }),
  )
  const stop = async (): Promise<number | NodeJS.Signals> => {
    child.kill('SIGTERM')
    return exited
  }
  return {
    pid: child.pid ?? -1,
    stdout: stdout.text,
    stderr: stderr.text,
    logged: stderr.seen,
    printed: stdout.seen,
    bound: async () => Number((await stdout.seen(/Listening on port (\d+)/)).replace(/\D/g, '')),
    signal: (name) => {
      if (command === binary) child.kill(name)
      else process.kill(-(child.pid ?? 0), name)
    },
    exited,
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop()
    },
  }
}

/** Starts the program and waits until it listens to the database. */
export async function start(env: Environment, args: readonly string[] = [], command = binary): Promise<Program> {
  const program = launch(env, args, command)
  const port = await program.bound()
  await program.logged(/info: listening |"event":"listening"/)
  return { ...program, port, origin: `ws://127.0.0.1:${port}` }
}

const running = new Set<ChildProcess>()

/** Ends whatever a failed test left running. */
export function killAll(): void {
  for (const child of running) child.kill('SIGKILL')
}
atEnd(killAll)

interface Watch {
  text(): string
  seen(pattern: RegExp, after?: number): Promise<string>
  end(): void
}

function watch(stream: NodeJS.ReadableStream): Watch {
  let text = ''
  let ended = false
  const waiting = new Set<() => void>()
  const look = (): void => {
    for (const check of waiting) check()
  }
  stream.on('data', (chunk) => {
    text += chunk
    look()
  })
  return {
    text: () => text,
    seen: (pattern, after = 0) =>
      new Promise((resolve, reject) => {
        const check = (): void => {
          const found = pattern.exec(text.slice(after))
          if (found) resolve(found[0])
          else if (ended) reject(new Error(`ended without ${pattern}: ${text}`))
          else return
          waiting.delete(check)
        }
        waiting.add(check)
        check()
      }),
    end: () => {
      ended = true
      look()
    },
  }
}
