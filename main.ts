/** Owns the process: its flags, its configuration, its start, its signals and its exit code. */
// Ahead of the others, whose loading takes most of a start.
import './lib/hangup.ts'
import { readFileSync } from 'node:fs'
import { hostname, userInfo } from 'node:os'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { runtime } from '#runtime'
import { JournalFault } from './lib/broker/postgres/journal/inspection.ts'
import { type Config, parse, parseDatabase } from './lib/config/config.ts'
import { parseEnvFile } from './lib/config/env-file.ts'
import { help } from './lib/config/help.ts'
import { isLoopback } from './lib/config/values.ts'
import { variables } from './lib/config/variables.ts'
import { createWatch, type Watch } from './lib/config/watch.ts'
import { createDatabase } from './lib/database/database.ts'
import { describeInstallation, install, schema } from './lib/database/schema/install.ts'
import { check, describeFolder, type Mark } from './lib/doctor.ts'
import { Fault, messageOf } from './lib/fault.ts'
import { createLog, type Log } from './lib/log.ts'
import { createLogOutput } from './lib/log-output.ts'
import { reasonOf } from './lib/reach.ts'
import { FunctionFault } from './lib/rules/inspection.ts'
import { ConnectionsFault } from './lib/rules/rights.ts'
import { createServer } from './lib/server.ts'
import about from './package.json' with { type: 'json' }

const { version } = about

function fail(...lines: readonly string[]): never {
  console.error(`postgres-websockets: ${lines.join('\n  ')}`)
  process.exit(1)
}

/** Milliseconds for the last lines of the log to be written before the process exits. */
const LOG_PATIENCE = 1000

/** Milliseconds between two checks of the configuration's files for changes. */
const WATCH_PERIOD = 2000

interface Flags {
  readonly 'env-file'?: string
  readonly check?: boolean
  readonly ready?: boolean
  readonly install?: boolean
  readonly 'print-sql'?: boolean
  readonly help?: boolean
  readonly version?: boolean
}

function readFlags(): Flags {
  const flag = { type: 'boolean' } as const
  const options = {
    'env-file': { type: 'string' },
    check: flag,
    ready: flag,
    install: flag,
    'print-sql': flag,
    help: { ...flag, short: 'h' },
    version: { ...flag, short: 'v' },
  } as const
  try {
    return parseArgs({ args: process.argv.slice(2), options }).values
  } catch (error) {
    return fail(messageOf(error).replace(/\. To specify a positional.*/, '.'), 'postgres-websockets --help names every flag')
  }
}

/** The environment. A variable that is not set there is taken from the environment file. */
function environment(file: string | undefined): NodeJS.ProcessEnv {
  if (file === undefined) return { ...process.env }
  try {
    const set = Object.entries(process.env).filter(([, value]) => value !== '')
    return { ...parseEnvFile(readFileSync(file, 'utf8')), ...Object.fromEntries(set) }
  } catch (error) {
    return fail(`--env-file ${file}: ${error instanceof Fault ? error.message : 'the file cannot be read'}`)
  }
}

/** What the system says. A container's user may have no name, and Deno may not be allowed to ask. */
function told(ask: () => string): string {
  try {
    return ask()
  } catch {
    return ''
  }
}

/** libpq's default for PostgreSQL's user. */
const osUser = (): string => told(() => userInfo().username)

/** Tries everything, prints what it found with ✓, ! or ✗, and exits. */
async function runCheck(env: NodeJS.ProcessEnv): Promise<void> {
  const say = (mark: Mark, text: string): void => console.log(`${mark} ${text}`)
  const config = parse(env, readFileSync, osUser())
  const faults = 'faults' in config ? config.faults : []
  const about = (lines: readonly string[], name: string): string | undefined => lines.find((line) => line.startsWith(`${name} `))
  const names = Object.values(variables).map(({ name }) => name)
  for (const name of names) {
    const fault = about(faults, name)
    const warning = about(config.warnings, name)
    if (fault !== undefined) say('✗', fault)
    else if (warning !== undefined) say('!', warning)
    else if (env[name]) say('✓', name)
  }
  for (const warning of config.warnings) if (!names.some((name) => warning.startsWith(`${name} `))) say('!', warning)
  let isWell = faults.length === 0
  if (!('faults' in config)) {
    for await (const { name, mark, found } of check(config, runtime, Date.now())) {
      say(mark, `${name}: ${found}`)
      isWell &&= mark !== '✗'
    }
  }
  process.exit(isWell ? 0 : 1)
}

/** Asks the admin port of a server with the same configuration. */
async function askReady(env: NodeJS.ProcessEnv): Promise<void> {
  const port = env.PGWS_ADMIN_PORT
  if (!port) return fail('--ready asks the admin port: set PGWS_ADMIN_PORT')
  const host = env.PGWS_ADMIN_HOST || env.PGWS_HOST || '*4'
  const address = host.startsWith('!6') ? '[::1]' : /^[*!]/.test(host) ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host
  try {
    const answer = await fetch(`http://${address}:${port}/ready`, { signal: AbortSignal.timeout(5000) })
    console.log((await answer.text()).trimEnd())
    process.exit(answer.ok ? 0 : 1)
  } catch (error) {
    fail(`the admin port ${port} does not answer: ${reasonOf(error)}`)
  }
}

/** Creates or upgrades the journal's schema. */
async function runInstall(env: NodeJS.ProcessEnv): Promise<void> {
  const conninfo = parseDatabase(env, readFileSync, osUser())
  if ('faults' in conninfo) return fail('the configuration is wrong:', ...conninfo.faults)
  console.log(describeInstallation(await install(createDatabase(() => conninfo, 0))))
}

const usage = () => ({
  residentBytes: process.memoryUsage.rss(),
  cpuSeconds: (process.cpuUsage().user + process.cpuUsage().system) / 1e6,
  startedAt: Date.now() / 1000 - process.uptime(),
})

async function run(config: Config, reread: () => ReturnType<typeof parse>, watch: Watch): Promise<void> {
  // journald adds the time itself.
  const isTimed = config.logFormat === 'json' || process.env.JOURNAL_STREAM === undefined
  const log = createLog({
    level: config.logLevel,
    format: config.logFormat,
    time: () => (isTimed ? new Date().toISOString() : undefined),
    write: (line) => output.write(line),
  })
  const output = createLogOutput({
    put: runtime.writeError,
    reportDropped: (lines) => log.warning('log lines dropped, for nobody read them', { lines }),
  })
  const stop = async (code: 0 | 1): Promise<void> => {
    watch.stop()
    const lost = await server.stop()
    await output.flushed(LOG_PATIENCE)
    process.exit(lost > 0 ? 1 : code)
  }
  const server = await createServer({
    config,
    runtime,
    log,
    version,
    machine: told(hostname),
    usage: () => ({ ...usage(), droppedLogLines: output.dropped }),
    lost: () => void stop(1),
  })
  let signals = 0
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      // A second signal means: do not wait for the drain.
      if (++signals > 1) process.exit(1)
      void stop(0)
    })
  }
  const takeOver = (): void => {
    const next = reread()
    if ('faults' in next) return log.error('configuration files not taken over', { faults: next.faults.join('; ') })
    server.reload(next).catch((error) => {
      log.error('certificate not taken over', { reason: messageOf(error) })
      void stop(1)
    })
  }
  process.on('SIGHUP', takeOver)
  watch.start(takeOver)
  console.log(`postgres-websockets ${version} / Connects websockets to PostgreSQL asynchronous notifications.`)
  console.log(`Listening on port ${server.port}`)
  await warnAtStart(config, log)
  if (server.adminPort !== undefined) log.info('admin port', { port: server.adminPort })
  try {
    await server.start()
  } catch (error) {
    log.error(whatFailed(error), {
      reason: messageOf(error),
    })
    await stop(1)
  }
}

/** What keeps it from starting. */
function whatFailed(error: unknown): string {
  if (error instanceof JournalFault) return 'cannot use the journal'
  if (error instanceof ConnectionsFault) return 'cannot keep connections'
  return error instanceof FunctionFault ? 'cannot call a function' : 'cannot reach the database'
}

/** Warns of what works but was probably not intended. */
async function warnAtStart(config: Config, log: Log): Promise<void> {
  for (const warning of config.warnings) {
    const isHarmless = warning.startsWith(`${variables.jwtSecret.name} `) && isLoopback(config.host)
    if (!isHarmless) log.warning('configuration', { warning })
  }
  if (config.rootPath === undefined) return
  await describeFolder(config.rootPath).catch((error) =>
    log.warning('configuration', { warning: `${variables.rootPath.name}: ${messageOf(error)}` }),
  )
}

async function main(): Promise<void> {
  const flags = readFlags()
  if (flags.help) return void console.log(help(version).trimEnd())
  if (flags.version) return void console.log(`postgres-websockets ${version}`)
  if (flags['print-sql']) return void console.log(schema.trimEnd())
  const env = environment(flags['env-file'])
  // postgres.js reads PG* variables of its own for options that are not given. libpq's are read from the copy above.
  for (const name of Object.keys(process.env)) if (/^PG(?!WS_)/.test(name)) delete process.env[name]
  if (flags.ready) return askReady(env)
  if (flags.check) return runCheck(env)
  if (flags.install) return runInstall(env)
  const watch = createWatch(WATCH_PERIOD)
  const read = (): ReturnType<typeof parse> => parse(env, watch.readFile, osUser())
  const config = read()
  if ('faults' in config) return fail('the configuration is wrong:', ...config.faults)
  try {
    await run(config, read, watch)
  } catch (error) {
    const admin = config.adminPort === undefined ? '' : `, PGWS_ADMIN_PORT=${config.adminPort}`
    fail(`cannot serve PGWS_HOST=${config.host} PGWS_PORT=${config.port}${admin}: ${messageOf(error)}`)
  }
}

main().catch((error) => fail(messageOf(error)))
