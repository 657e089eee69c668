/** Owns the process: its configuration, its start, its signals and its exit code. */
import { readFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { type Config, parse } from './lib/config.ts'
import { EnvFileFault, parseEnvFile } from './lib/env-file.ts'
import { help } from './lib/help.ts'
import { createLog } from './lib/log.ts'
import { fileBody, serve } from './lib/runtime/bun.ts'
import { createServer } from './lib/server.ts'
import { version } from './package.json'

const log = createLog((line) => process.stderr.write(`${line}\n`))

function fail(...lines: readonly string[]): never {
  process.stderr.write(`postgres-websockets: ${lines.join('\n  ')}\n`)
  process.exit(1)
}

function readFlags(): { 'env-file'?: string; help?: boolean; version?: boolean } {
  const string = { type: 'string' } as const
  const boolean = { type: 'boolean' } as const
  try {
    return parseArgs({ args: process.argv.slice(2), options: { 'env-file': string, help: boolean, version: boolean } }).values
  } catch (error) {
    return fail(messageOf(error).replace(/\. To specify a positional.*/, '.'), 'postgres-websockets --help names every flag')
  }
}

/** The environment, with an environment file's variables where it has none of their name. */
function environment(file: string | undefined): NodeJS.ProcessEnv {
  if (file === undefined) return { ...process.env }
  try {
    const set = Object.entries(process.env).filter(([, value]) => value !== '')
    return { ...parseEnvFile(readFileSync(file, 'utf8')), ...Object.fromEntries(set) }
  } catch (error) {
    return fail(`--env-file ${file}: ${error instanceof EnvFileFault ? error.message : 'the file cannot be read'}`)
  }
}

function configure(env: NodeJS.ProcessEnv): Config {
  const config = parse(env, readFileSync, osUser())
  if ('faults' in config) return fail('the configuration is wrong:', ...config.faults)
  // postgres.js takes what it is not told from PG* variables, some of which are not libpq's; libpq's have been read.
  for (const name of Object.keys(process.env)) if (/^PG(?!WS_)/.test(name)) delete process.env[name]
  return config
}

/** libpq's default for PostgreSQL's user. A container's user may have no name. */
function osUser(): string {
  try {
    return userInfo().username
  } catch {
    return ''
  }
}

async function run(config: Config): Promise<void> {
  const stop = async (code: 0 | 1): Promise<void> => {
    const lost = await server.stop()
    process.exit(lost > 0 ? 1 : code)
  }
  const server = createServer({ config, serve, fileBody, log, version, lost: () => void stop(1) })
  let signals = 0
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      // Who asks twice does not want to wait.
      if (++signals > 1) process.exit(1)
      void stop(0)
    })
  }
  process.stdout.write(`postgres-websockets ${version} / Connects websockets to PostgreSQL asynchronous notifications.\n`)
  process.stdout.write(`Listening on port ${server.port}\n`)
  try {
    await server.start()
  } catch (error) {
    log.error('cannot reach the database', { reason: messageOf(error) })
    await stop(1)
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

function main(): void {
  const flags = readFlags()
  if (flags.help) return void process.stdout.write(help(version))
  if (flags.version) return void process.stdout.write(`postgres-websockets ${version}\n`)
  const config = configure(environment(flags['env-file']))
  run(config).catch((error) => fail(`cannot serve PGWS_HOST=${config.host} PGWS_PORT=${config.port}: ${messageOf(error)}`))
}

main()
