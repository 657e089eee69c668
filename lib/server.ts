/** Owns the composition: makes the parts, wires the two ways that data takes, starts and stops them in order. */

import { createAuthenticator } from './access/authenticator.ts'
import { createKeyReader } from './access/token.ts'
import { createListener } from './broker/postgres/listener.ts'
import { createNotifier } from './broker/postgres/notifier.ts'
import { CHECK_PREFIX } from './broker/postgres/round-trip.ts'
import { channelOf } from './channels/envelope.ts'
import { createMetaEvents } from './channels/events.ts'
import { createHub, createMatcher } from './channels/hub.ts'
import { createSessions } from './channels/session.ts'
import type { Config } from './config/config.ts'
import { CHANNEL_BYTES } from './config/values.ts'
import { createDatabase } from './database/connection.ts'
import { createAdmin } from './doors/admin.ts'
import { createRoutes } from './doors/routes.ts'
import type { Log } from './log.ts'
import { createMetrics } from './metrics.ts'
import type { RunningServer, Runtime } from './runtime/contract.ts'

export interface Server {
  readonly port: number
  /** The admin port, where there is one. */
  readonly adminPort: number | undefined
  /** Resolves once the first LISTEN stands. @throws what the last attempt to reach the database met. */
  start(): Promise<void>
  /** Takes over what a configuration reads from files: keys, certificate, connection string. No client is dropped. */
  reload(config: Config): Promise<void>
  /** Drains and stops. @returns how many accepted messages did not reach the database; more calls await the same end. */
  stop(): Promise<number>
}

export interface ServerOptions {
  readonly config: Config
  readonly runtime: Runtime
  readonly log: Log
  readonly version: string
  /** What the process uses: bytes of memory, seconds of CPU time, its start in seconds of UNIX time, log lines that found no reader. */
  readonly usage: () => Readonly<Record<'residentBytes' | 'cpuSeconds' | 'startedAt' | 'droppedLogLines', number>>
  /** The listener is lost and is not to be healed: the process is to stop. */
  readonly lost: () => void
  readonly pingEvery?: number
}

/**
 * Messages longer than this are ended by the runtime before they are whole. Every longer one is too large for NOTIFY, but up to
 * here the reason says so.
 */
const MESSAGE_BYTES = 256 * 1024

/** Milliseconds in which accepted messages go round before the clients are closed, so that those who read get them. */
const DRAIN_GRACE = 250

/** Milliseconds that clients get to read what waits for them, to answer their close frame and to hang up. */
const CLOSE_PATIENCE = 2000

/** Binds the ports; plain HTTP is served from then on. */
export async function createServer({ config, runtime, log, version, usage, lost, pingEvery }: ServerOptions): Promise<Server> {
  let { database: conninfo, tls } = config
  let hasListened = false
  let stopping: Promise<number> | undefined
  const metrics = createMetrics()
  const database = createDatabase(() => conninfo, config.checkInterval)
  const authenticator = createAuthenticator({
    keys: config.keys,
    read: config.jwksUrl && createKeyReader(config.jwksUrl),
    policy: {
      audience: config.jwtAudience,
      issuer: config.jwtIssuer,
      modeClaim: config.modeClaim,
      channelsClaim: config.channelsClaim,
    },
    log,
  })
  const notifier = createNotifier({
    database,
    channel: config.listenChannel,
    log,
    metrics,
  })
  const meta = createMetaEvents({
    channel: config.metaChannel,
    events: config.metaEvents,
    forwardClaims: config.forwardClaims,
    notifier,
    log,
  })

  /** What came in the read under way, all of which is handed on in one tick. */
  const read = { at: 0, notifications: 0, deliveries: 0, bytes: 0 }
  const record = (): void => {
    metrics.toSocket.observe((performance.now() - read.at) / 1000, read.notifications)
    metrics.notifications.add(read.notifications)
    metrics.delivered.add(read.deliveries)
    metrics.deliveredBytes.add(read.bytes)
    read.notifications = read.deliveries = read.bytes = 0
  }

  const matches = createMatcher(config.databaseChannels ?? [])
  const hub = createHub({
    publish: (topic, text) => running.publish(topic, text),
    isDirect: (channel) =>
      channel !== config.listenChannel &&
      !channel.startsWith(CHECK_PREFIX) &&
      channel !== '' &&
      !channel.includes('\0') &&
      Buffer.byteLength(channel) <= CHANNEL_BYTES &&
      matches(channel),
    listen: (channel) => listener.listen(channel),
    unlisten: (channel) => listener.unlisten(channel),
  })
  const listener = createListener({
    database,
    notifier,
    channel: config.listenChannel,
    maxChannels: config.maxDatabaseChannels,
    checkInterval: config.checkInterval,
    log,
    failed: (channel) => sessions.lost(channel),
    notified: (channel, notification) => {
      if (read.notifications++ === 0) {
        read.at = performance.now()
        queueMicrotask(record)
      }
      const readers = hub.deliver(channel === config.listenChannel ? (channelOf(notification) ?? channel) : channel, notification)
      if (readers === 0) return
      const bytes = Buffer.byteLength(notification)
      read.deliveries += readers
      read.bytes += readers * bytes
      sessions.handed(bytes, readers)
    },
    lost: () => {
      if (stopping !== undefined) return false
      const isHealed = config.checkInterval > 0
      if (!isHealed) lost()
      return isHealed
    },
    missed: (from, to) => sessions.missed(from, to),
    restored: (from, to) => {
      metrics.reconnections.add()
      metrics.outage.add((to - from) / 1000)
      log.info('listening again', { 'missed-from': from / 1000, 'missed-to': to / 1000 })
      meta.restored(from, to)
    },
  })
  const sessions = createSessions({
    hub,
    notifier,
    meta,
    metrics,
    log,
    forwardClaims: config.forwardClaims,
    maxMessagesPerSecond: config.maxMessagesPerSecond,
    sendBufferBytes: config.sendBufferBytes,
    ...(pingEvery === undefined ? {} : { pingEvery }),
  })
  const routes = createRoutes({
    authenticator,
    allowedOrigins: config.allowedOrigins,
    maxConnections: config.maxConnections,
    rootPath: config.rootPath,
    fileBody: runtime.fileBody,
    sessions,
    metrics,
    log,
    product: `postgres-websockets/${version}`,
    admission: () => (stopping !== undefined ? 'SHUTTING_DOWN' : hasListened ? undefined : 'NOT_READY'),
  })
  const { host, port, adminPort, reusePort } = config
  const running: RunningServer = await runtime.serve(
    { host, port, tls, reusePort, messageBytes: MESSAGE_BYTES },
    { ...sessions, request: routes },
  )
  const isReady = (): boolean => stopping === undefined && listener.isProven
  const admin =
    adminPort === undefined
      ? undefined
      : await runtime.serveHttp({ host: config.adminHost ?? host, port: adminPort }, createAdmin({ isReady, metrics }))

  const { gauge } = metrics
  gauge('pgws_connections', 'Open connections, by mode.', sessions.modes, 'mode')
  gauge('pgws_listener_up', 'Whether the last check of LISTEN succeeded.', () => Number(listener.isProven))
  gauge(
    'pgws_notification_queue_usage',
    "Part of PostgreSQL's notification queue in use, from 0 to 1.",
    () => listener.queueUsage,
  )
  gauge('pgws_build_info', 'The version, as a label.', () => ({ [version]: 1 }), 'version')
  gauge('process_resident_memory_bytes', 'Resident memory size in bytes.', () => usage().residentBytes)
  gauge('process_cpu_seconds_total', 'User and system CPU time in seconds.', () => usage().cpuSeconds, undefined, 'counter')
  gauge(
    'pgws_log_lines_dropped_total',
    'Log lines dropped because nobody read them.',
    () => usage().droppedLogLines,
    undefined,
    'counter',
  )
  gauge('process_start_time_seconds', 'Start of the process in seconds of UNIX time.', () => usage().startedAt)

  /** Accepted messages go first, then the clients, who may be sending all the while, then what they sent last. */
  async function drain(): Promise<number> {
    const end = performance.now() + config.shutdownTimeout
    const left = (): number => Math.max(0, end - performance.now())
    log.info('draining', { clients: sessions.count })
    running.stopAccepting()
    notifier.release()
    await orAfter(Math.min(DRAIN_GRACE, left() / 2), notifier.drained())
    await sessions.closeAll(Math.min(CLOSE_PATIENCE, left()))
    await running.hungUp(Math.min(CLOSE_PATIENCE, left()))
    await orAfter(left(), notifier.drained())
    const lostMessages = notifier.stop()
    listener.stop()
    authenticator.stop()
    running.stop()
    admin?.stop()
    if (lostMessages > 0) log.error('stopped with messages that the database did not take', { messages: lostMessages })
    else log.info('stopped')
    return lostMessages
  }

  return {
    port: running.port,
    adminPort: admin?.port,
    async start() {
      await listener.start(Math.max(1, config.retries))
      hasListened = true
    },
    async reload(next) {
      conninfo = next.database
      authenticator.replace(next.keys)
      if (next.tls && next.tls.cert !== tls?.cert) await running.renewCertificate(next.tls)
      tls = next.tls
      log.info('configuration files read again')
    },
    stop: () => {
      stopping ??= drain()
      return stopping
    },
  }
}

/** Awaits a promise, but no longer than some milliseconds. */
async function orAfter(limit: number, promise: Promise<unknown>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const limited = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, limit)
  })
  await Promise.race([promise, limited])
  clearTimeout(timer)
}
