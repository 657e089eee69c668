/**
 * Owns `npm start` and `npm run start:deno`: the server with the values of sample-env and the example page, on the database of PGWS_DB_URI or, where that is
 * unset, on an embedded PostgreSQL that starts and stops with it. That one has the journal, so that the page's channels have history.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseEnvFile } from '../lib/config/env-file.ts'
import { startPostgres } from '../test/support/postgres.ts'
import { startTrial, type Trial } from './start/trial.ts'

const root = resolve(import.meta.dirname, '..')
const main = resolve(root, 'main.ts')
const sample = parseEnvFile(readFileSync(resolve(root, 'sample-env'), 'utf8'))
const given = Object.fromEntries(Object.entries(process.env).filter(([, value]) => value !== ''))

/** What the server may do on Deno, which asks nobody for more. */
const flags = 'deno' in process.versions ? ['run', '--no-prompt', '--allow-net', '--allow-env', '--allow-read'] : []

let stopping = false
let child: ChildProcess | undefined
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    stopping = true
    child?.kill(signal)
  })
}

let trial: Trial | undefined
const postgres = given.PGWS_DB_URI === undefined ? await startPostgres({ folder: resolve(root, '.postgres/18') }) : undefined
try {
  // The sample's secret is public: only this machine gets at what it guards.
  const ours = { ...sample, PGWS_HOST: '127.0.0.1', ...(postgres ? withJournal(postgres.uri) : {}) }
  const env = { ...ours, ...given }
  trial = await tryOut(env)
  process.exitCode = stopping ? 0 : await serve({ ...env, ...(trial ? { PGWS_ROOT_PATH: trial.folder } : {}) })
} finally {
  await trial?.stop()
  await postgres?.stop()
}

/** Installs the schema, which no server does unasked. */
function withJournal(uri: string): Record<string, string> {
  const env = { ...process.env, PGWS_DB_URI: uri }
  const { status } = spawnSync(process.execPath, [...flags, main, '--install'], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  if (status !== 0) throw new Error('the journal could not be installed')
  return { PGWS_DB_URI: uri, PGWS_JOURNAL: 'True', PGWS_JOURNAL_CHANNELS: 'chat*,orders' }
}

/** Only the sample's own folder and secret are tried out: others have their own servers for tokens. */
async function tryOut(env: Record<string, string | undefined>): Promise<Trial | undefined> {
  const secret = sample.PGWS_JWT_SECRET
  if (secret === undefined || env.PGWS_JWT_SECRET !== secret || env.PGWS_ROOT_PATH !== sample.PGWS_ROOT_PATH) return undefined
  return startTrial({ page: resolve(root, 'client-example'), secret, uri: postgres?.uri })
}

async function serve(env: Record<string, string | undefined>): Promise<number> {
  // In a process group of its own, so that a terminal's Ctrl-C reaches it once: through us.
  const server = spawn(process.execPath, [...flags, main], {
    cwd: root,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  child = server
  server.stdout.on('data', (chunk) => {
    process.stdout.write(chunk)
    const port = /Listening on port (\d+)/.exec(String(chunk))?.[1]
    if (port === undefined) return
    trial?.allow(port)
    explain(port, env)
  })
  return new Promise((done) => server.once('exit', (code) => done(code ?? 1)))
}

function explain(port: string, env: Record<string, string | undefined>): void {
  const publish = env.PGWS_JOURNAL === 'True' ? `select pgws.publish('chat', 'kept, from SQL');` : '(docs/journal.md)'
  const message = `{"event":"WebsocketMessage","channel":"chat","payload":"hello from SQL"}`
  process.stdout.write(`
  Open the example page:       http://localhost:${port}
  Connect to the database:     psql "${postgres?.uri ?? '$PGWS_DB_URI'}"
  Send a message from SQL:     select pg_notify('${env.PGWS_LISTEN_CHANNEL}', '${message}');
  Send one that is kept:       ${publish}
  Stop with Ctrl-C.

`)
}
