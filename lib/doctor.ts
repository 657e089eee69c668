/** Owns `--check`: tries what a configuration leads to, item by item, without serving anyone. */
import { X509Certificate } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { createKeyReader, type Key } from './access/token.ts'
import { createListener } from './broker/postgres/listener.ts'
import { createNotifier } from './broker/postgres/notifier.ts'
import type { Config } from './config/config.ts'
import { createDatabase } from './database/connection.ts'
import { createLog } from './log.ts'
import { createMetrics } from './metrics.ts'

/** What was tried, whether it is well, and what was found. */
export interface Item {
  readonly name: string
  readonly isWell: boolean
  readonly found: string
}

/** @param now UNIX time in milliseconds. */
export async function* check(config: Config, now: number): AsyncGenerator<Item> {
  yield await attempt('database', async () => {
    const connection = await createDatabase(() => config.database, 0).connect()
    const { place, version, encrypted } = connection.server
    connection.close()
    return `${place}, PostgreSQL ${version}, primary, ${encrypted ? 'TLS' : 'no TLS'}`
  })
  yield await attempt('LISTEN and NOTIFY', () => goRound(config))
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

async function attempt(name: string, look: () => Promise<string>): Promise<Item> {
  try {
    return { name, isWell: true, found: await look() }
  } catch (error) {
    return { name, isWell: false, found: error instanceof Error ? error.message : String(error) }
  }
}

/** The server's own listener proves the whole way, or says what is in it. */
async function goRound(config: Config): Promise<string> {
  const log = createLog({ write: () => undefined })
  const database = createDatabase(() => config.database, config.checkInterval)
  const wanted = { database, channel: config.listenChannel, log }
  const notifier = createNotifier({ ...wanted, metrics: createMetrics() })
  const listener = createListener({
    ...wanted,
    notifier,
    maxChannels: config.maxDatabaseChannels,
    checkInterval: config.checkInterval,
    notified: () => undefined,
    lost: () => false,
    failed: () => undefined,
    missed: () => undefined,
    restored: () => undefined,
  })
  const began = performance.now()
  try {
    await listener.start(1)
    return `a notification came back on ${JSON.stringify(config.listenChannel)} in ${Math.ceil(performance.now() - began)} ms`
  } finally {
    listener.stop()
    notifier.stop()
  }
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

async function describeFolder(root: string): Promise<string> {
  const folder = await stat(root).catch(() => undefined)
  if (!folder?.isDirectory()) throw new Error(`${root} is no folder that can be read`)
  const index = await stat(join(root, 'index.html')).catch(() => undefined)
  return index?.isFile() ? root : `${root}, without index.html`
}
