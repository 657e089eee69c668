/** Owns `--check`: tries everything that a configuration needs, one item at a time, without serving clients. */
import { X509Certificate } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { isAbsolute, join, resolve } from 'node:path'
import { createKeyReader, type Key } from './access/token.ts'
import { createPostgresBroker } from './broker/postgres/broker.ts'
import { mustBeUsable, readHoldings } from './broker/postgres/journal/inspection.ts'
import type { Config } from './config/config.ts'
import { createDatabase } from './database/database.ts'
import { messageOf } from './fault.ts'
import { createLog } from './log.ts'
import { createMetrics } from './metrics.ts'
import { authorizing, type Inspected, mustBeCallable } from './rules/inspection.ts'
import { inspectMessageFunction } from './rules/message-function.ts'
import { mustKeepConnections } from './rules/rights.ts'
import type { Runtime } from './runtime/contract.ts'

/** ✓ works, ! works but was probably not intended, ✗ keeps the server from working. */
export type Mark = '✓' | '!' | '✗'

/** What was tried, its result, and what was found. */
export interface Item {
  readonly name: string
  readonly mark: Mark
  readonly found: string
}

/** What was found: ✓, or ! with a warning. An error is ✗. */
type Found = string | { readonly warning: string }

/** @param now UNIX time in milliseconds. */
export async function* check(config: Config, runtime: Runtime, now: number): AsyncGenerator<Item> {
  yield* bindPorts(config, runtime)
  yield await attempt('database', async () => {
    const connection = await createDatabase(() => config.database, 0).connect()
    const { place, version, encrypted } = connection.server
    connection.close()
    return `${place}, PostgreSQL ${version}, primary, ${encrypted ? 'TLS' : 'no TLS'}`
  })
  yield await attempt('LISTEN and NOTIFY', () => goRoundTrip(config))
  if (config.journal) yield await attempt('journal', () => describeJournal(config))
  if (config.authorizeFunction !== undefined) {
    const inspected = authorizing(config.authorizeFunction, config.jwtRoleClaim)
    yield await attempt('function', () => describeFunction(config, inspected))
  }
  if (config.messageFunction !== undefined)
    yield await attempt('message function', () =>
      inspectMessageFunction(
        config,
        createDatabase(() => config.database, 0),
      ),
    )
  if (config.connections) yield await attempt('connections', () => describeConnections(config))
  yield await attempt('keys', async () => {
    const fetched = config.jwksUrl ? await createKeyReader(config.jwksUrl)() : []
    return [...config.keys, ...fetched].map(describeKey).join('; ')
  })
  if (config.tls) {
    const { cert } = config.tls
    yield await attempt('certificate', async () => describeCertificate(cert, now))
  }
  if (config.rootPath !== undefined) {
    const root = config.rootPath
    yield await attempt('static files', () => describeFolder(root))
  }
}

/** Binds both ports at the same time, as a start does, and releases them. */
async function* bindPorts(config: Config, runtime: Runtime): AsyncGenerator<Item> {
  const { host, port, adminPort, adminHost = host, tls, reusePort } = config
  const bound: { stop(): void }[] = []
  const nothing = (): void => undefined
  const refuse = (): Response => new Response(null, { status: 503 })
  const handlers = {
    request: refuse,
    open: nothing,
    message: nothing,
    ping: nothing,
    pong: nothing,
    close: nothing,
    paused: nothing,
    resumed: nothing,
  }
  yield await attempt('port', async () => {
    bound.push(await runtime.serve({ host, port, tls, reusePort, messageBytes: 0 }, handlers))
    return `${port} on ${host}`
  })
  if (adminPort !== undefined)
    yield await attempt('admin port', async () => {
      bound.push(await runtime.serveHttp({ host: adminHost, port: adminPort }, refuse))
      return `${adminPort} on ${adminHost}`
    })
  for (const server of bound) server.stop()
}

async function attempt(name: string, look: () => Promise<Found>): Promise<Item> {
  try {
    const found = await look()
    return typeof found === 'string' ? { name, mark: '✓', found } : { name, mark: '!', found: found.warning }
  } catch (error) {
    return { name, mark: '✗', found: messageOf(error) }
  }
}

/** Sends a notification through the server's own broker, which says what is wrong when it does not come back. */
async function goRoundTrip(config: Config): Promise<string> {
  const broker = createPostgresBroker({
    database: createDatabase(() => config.database, config.checkInterval),
    channel: config.listenChannel,
    isDirect: () => false,
    maxChannels: 0,
    journal: undefined,
    signals: new Map(),
    checkInterval: config.checkInterval,
    attempts: 1,
    log: createLog({ write: () => undefined }),
    metrics: createMetrics(),
  })
  const ignore = (): void => undefined
  const began = performance.now()
  try {
    await broker.start({ message: ignore, missed: ignore, historyLost: ignore, lost: ignore, restored: ignore, ended: ignore })
    return `a notification came back on ${JSON.stringify(config.listenChannel)} in ${Math.ceil(performance.now() - began)} ms`
  } finally {
    broker.stop()
  }
}

/** That the journal can be used, and what it holds. */
async function describeJournal(config: Config): Promise<string> {
  const session = await createDatabase(() => config.database, 0).connect()
  try {
    await mustBeUsable(session, config.journalRetention)
    const { messages, bytes, age } = await readHoldings(session, 0)
    const oldest = messages === 0 ? '' : `, the oldest ${Math.ceil(age)} s old`
    return `${messages} messages, ${Math.ceil(bytes / 1024)} KiB${oldest}; kept for ${config.journalRetention}`
  } finally {
    session.close()
  }
}

async function describeFunction(config: Config, inspected: Inspected): Promise<string> {
  const session = await createDatabase(() => config.database, 0).connect()
  return mustBeCallable(session, inspected).finally(() => session.close())
}

/** That connections can be written. */
async function describeConnections(config: Config): Promise<string> {
  const session = await createDatabase(() => config.database, 0).connect()
  await mustKeepConnections(session).finally(() => session.close())
  return 'shown in pgws.connections'
}

function describeKey({ id, algorithms }: Key): string {
  const names = algorithms.map(({ name }) => name).join(' ')
  return id === undefined ? names : `${names} (kid ${JSON.stringify(id)})`
}

async function describeCertificate(pem: string, now: number): Promise<string> {
  const { subjectAltName, subject, validTo } = new X509Certificate(pem)
  const text = `${subjectAltName ?? subject}, until ${validTo}`
  if (Date.parse(validTo) <= now) throw new Error(`${text}: it has expired`)
  return text
}

/** @throws where the folder cannot be read. */
export async function describeFolder(root: string): Promise<Found> {
  const path = resolve(root)
  const folder = await stat(path).catch(() => undefined)
  if (!folder?.isDirectory()) throw new Error(`${path} is no folder that can be read`)
  const index = await stat(join(path, 'index.html')).catch(() => undefined)
  const found = index?.isFile() ? path : `${path}, without index.html`
  return isAbsolute(root) ? found : { warning: `${found}: ${root} is relative to where the program is started` }
}
