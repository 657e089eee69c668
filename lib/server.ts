/** Owns the composition: makes the parts, connects them, and starts and stops them in order. */

import { type Authenticator, createAuthenticator } from './access/authenticator.ts'
import { type Grant, grant, narrowed, type Permit } from './access/grant.ts'
import { createKeyReader } from './access/token.ts'
import { createPostgresBroker, type JournalSettings, type PostgresOptions } from './broker/postgres/broker.ts'
import type { Broker } from './channels/broker.ts'
import { createId } from './channels/client-log.ts'
import { drain } from './channels/drain.ts'
import { createMetaEvents, type MetaEvents } from './channels/events.ts'
import { createHub, createMatcher } from './channels/hub.ts'
import { createPost } from './channels/post.ts'
import { createSessions, type Session } from './channels/session.ts'
import type { Config } from './config/config.ts'
import { place } from './database/conninfo.ts'
import { createDatabase } from './database/database.ts'
import { createAdmin } from './doors/admin.ts'
import { createEventStreams } from './doors/event-stream.ts'
import { createRoutes } from './doors/routes.ts'
import { createProtocols, createSocketHandlers } from './doors/websocket.ts'
import type { Log } from './log.ts'
import { createMetrics, type Metrics } from './metrics.ts'
import { isRefusal, NOTIFICATION_BYTES, type Refusal } from './refusal.ts'
import { type Connections, type ConnectionsOptions, createConnections, ORDERED } from './rules/connections.ts'
import { createMessageHandler, inspectMessageFunction } from './rules/message-function.ts'
import { createRules } from './rules/rules.ts'
import type { RunningServer, Runtime } from './runtime/contract.ts'
import { describeProcess, type Usage } from './usage.ts'
import { inTick } from './waiting.ts'

export interface Server {
  readonly port: number
  /** The admin port, where there is one. */
  readonly adminPort: number | undefined
  /** Resolves once the first LISTEN stands. @throws the error of the last attempt to reach the database. */
  start(): Promise<void>
  /** Applies what the configuration reads from files: keys, certificate, connection string. No client is dropped. */
  reload(config: Config): Promise<void>
  /** Drains and stops. @returns how many accepted messages did not reach the database. Further calls await the same end. */
  stop(): Promise<number>
}

export interface ServerOptions {
  readonly config: Config
  readonly runtime: Runtime
  readonly log: Log
  readonly version: string
  /** What the machine is called. */
  readonly machine?: string
  readonly usage: Usage
  /** Called when the listener is lost and is not healed: the process must stop. */
  readonly lost: () => void
  readonly pingEvery?: number
}

/**
 * The most bytes of a message that the runtime reads; it closes the connection of a longer one. NOTIFY takes far less, but up to here
 * the close reason says so.
 */
const MESSAGE_BYTES = 256 * 1024

/** JSON that escapes all but ASCII takes so many times the bytes of its text: six characters for two bytes of UTF-8. */
const ESCAPED = 3

/** Binds the ports; plain HTTP is served from then on. */
export async function createServer(options: ServerOptions): Promise<Server> {
  const { config, runtime, log, version, machine = '', usage, lost, pingEvery } = options
  let { database: conninfo, tls } = config
  let hasListened = false
  let stopping: Promise<number> | undefined
  const metrics = createMetrics()
  const database = createDatabase(() => conninfo, config.checkInterval)
  const name = (): string => `${machine}:${running.port} ${createId()}`
  const disconnect = (session: Session, reason: string): void => sessions.disconnect(session, reason)
  const connections = connectionsOf(config, { database, name, end: disconnect, log, metrics })
  const authenticator = authenticatorOf(config, log, connections?.isRevoked)
  const isKept = createMatcher((config.journal && config.journalChannels) || [])
  const limitOf = (channel: string): number => (isKept(channel) ? config.maxMessageBytes + 1 : NOTIFICATION_BYTES)
  const rules = createRules(config, { database, log, metrics })
  const parts = { database, isKept, log, metrics }
  const handler = createMessageHandler(config, { ...parts, limitOf })
  const signals = new Map([...rules.signals(() => sessions.review()), ...signalsOf(connections)])
  const broker = brokerOf(config, { ...parts, signals, held: handler })
  const ways = handler ? [handler, broker] : [broker]
  // What the function is given need not fit into a notification: what it returns does.
  const sending = { broker, handler, limitOf: handler ? () => config.maxMessageBytes + 1 : limitOf }
  const meta = metaOf(config, broker, log)
  const hub = createHub({ broker, metrics, handedOn: (bytes, readers) => sessions.handedOn(bytes, readers) })
  const sessions = createSessions({
    hub,
    ...sending,
    isKept,
    meta,
    metrics,
    log,
    forwardClaims: config.forwardClaims,
    logClaim: config.logClaim,
    maxMessagesPerSecond: config.maxMessagesPerSecond,
    maxSubscriptions: config.maxSubscriptions,
    authorize: (token) => inTick(authenticator.verify(token), (permit) => allowed(permit, rules.authority !== undefined)),
    authority: rules.authority,
    reviewEvery: config.authorizeInterval,
    sendBufferBytes: config.sendBufferBytes + (config.journal ? config.maxMessageBytes : 0),
    closeAfterOutage: config.closeAfterOutage,
    registry: connections?.registry,
    ...(pingEvery === undefined ? {} : { pingEvery }),
  })
  const messageBytes = config.journal || handler ? Math.max(MESSAGE_BYTES, config.maxMessageBytes) : MESSAGE_BYTES
  const routes = createRoutes({
    authenticator,
    authority: rules.authority,
    allowedOrigins: config.allowedOrigins,
    maxConnections: config.maxConnections,
    history: broker.history,
    maxSubscriptions: config.maxSubscriptions,
    trustedProxies: config.trustedProxies,
    rootPath: config.rootPath,
    fileBody: runtime.fileBody,
    sessions,
    protocols: createProtocols((topic, text) => running.publish(topic, text)),
    eventStreams: createEventStreams(),
    post: createPost({ ...sending, forwardClaims: config.forwardClaims, metrics }),
    maxMessagesPerSecond: config.maxMessagesPerSecond,
    messageBytes,
    metrics,
    log,
    product: `postgres-websockets/${version}`,
    admission: () => (stopping !== undefined ? 'SHUTTING_DOWN' : hasListened ? undefined : 'NOT_READY'),
  })
  const { host, port, reusePort } = config
  const running: RunningServer = await runtime.serve(
    { host, port, tls, reusePort, messageBytes: config.journal ? ESCAPED * messageBytes : messageBytes },
    { ...createSocketHandlers(sessions), request: routes, ...tellingOfPauses(log, metrics) },
  )
  const isReady = (): boolean => stopping === undefined && hasListened && broker.isReady
  const admin = await serveAdmin(config, runtime, createAdmin({ isReady, metrics }))

  metrics.gauge('pgws_connections', 'Open connections, by mode.', sessions.modes, 'mode')
  describeProcess(metrics, version, usage)

  async function end(): Promise<number> {
    log.info('draining', { clients: sessions.count })
    const lostMessages = await drain(config.shutdownTimeout, { running, ways, sessions })
    await connections?.stop()
    authenticator.stop()
    rules.stop()
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
      log.info('waiting for the database', { server: conninfo.hosts.map(place).join(',') })
      const isCallable = await rules.inspect()
      await broker.start({
        message: hub.deliver,
        missed: sessions.missed,
        historyLost: sessions.historyLost,
        lost: sessions.lost,
        restored: meta.restored,
        ended: lost,
      })
      if (!isCallable) await rules.inspect()
      await connections?.start()
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
      stopping ??= end()
      return stopping
    },
  }
}

const brokerOf = (
  config: Config,
  parts: Pick<PostgresOptions, 'database' | 'held' | 'signals' | 'log' | 'metrics'> & Pick<JournalSettings, 'isKept'>,
): Broker =>
  createPostgresBroker({
    ...parts,
    inspect: () => inspectMessageFunction(config, parts.database),
    channel: config.listenChannel,
    isDirect: createMatcher(config.databaseChannels ?? []),
    maxChannels: config.maxDatabaseChannels,
    journal: config.journal
      ? { retention: config.journalRetention, cacheBytes: config.journalCacheBytes, isKept: parts.isKept }
      : undefined,
    checkInterval: config.checkInterval,
    attempts: Math.max(1, config.retries),
  })

const serveAdmin = (
  { host, adminHost = host, adminPort }: Config,
  runtime: Runtime,
  answer: ReturnType<typeof createAdmin>,
): ReturnType<Runtime['serveHttp']> | undefined =>
  adminPort === undefined ? undefined : runtime.serveHttp({ host: adminHost, port: adminPort }, answer)

const tellingOfPauses = (log: Log, metrics: Metrics) => ({
  paused(reason: string): void {
    metrics.pauses.add()
    log.error('accepting no connections', { reason })
  },
  resumed: () => log.info('accepting connections again'),
})

const connectionsOf = (
  { connections, journal, forwardClaims }: Config,
  parts: Omit<ConnectionsOptions<Session>, 'hasPresence' | 'shownClaims'>,
): Connections<Session> | undefined =>
  connections ? createConnections({ ...parts, hasPresence: journal, shownClaims: forwardClaims }) : undefined

const signalsOf = (connections: Connections<Session> | undefined): PostgresOptions['signals'] =>
  new Map(connections && [[ORDERED, connections.ordered]])

const authenticatorOf = (config: Config, log: Log, isRevoked?: (claims: string) => boolean): Authenticator =>
  createAuthenticator({
    keys: config.keys,
    ...(isRevoked && { isRevoked }),
    read: config.jwksUrl && createKeyReader(config.jwksUrl),
    policy: {
      audience: config.jwtAudience,
      issuer: config.jwtIssuer,
      modeClaim: config.modeClaim,
      channelsClaim: config.channelsClaim,
      roleClaim: config.jwtRoleClaim,
    },
    log,
  })

const metaOf = ({ metaChannel, metaEvents, forwardClaims }: Config, broker: Broker, log: Log): MetaEvents =>
  createMetaEvents({ channel: metaChannel, events: metaEvents, forwardClaims, broker, log })

/** What a token allows whose client asks for no channel yet. @param isDecided whether each channel is decided on, too. */
function allowed(permit: Permit | Refusal, isDecided: boolean): Grant | Refusal {
  const granted = isRefusal(permit) ? permit : grant(permit, undefined, Date.now(), false)
  return isRefusal(granted) || !isDecided ? granted : narrowed(granted, [])
}
