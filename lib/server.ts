/** Owns the composition: makes the parts, wires the two ways that data takes, starts and stops them in order. */
import type { Config } from './config.ts'
import { createDatabase } from './database.ts'
import { channelOf } from './envelope.ts'
import { createHub } from './hub.ts'
import { createListener } from './listener.ts'
import type { Log } from './log.ts'
import { createNotifier } from './notifier.ts'
import { createRoutes } from './routes.ts'
import type { FileBody, RunningServer, Serve } from './runtime/contract.ts'
import { createSessions } from './session.ts'

export interface Server {
  readonly port: number
  /** Resolves once the first LISTEN stands. @throws what the last attempt to reach the database met. */
  start(): Promise<void>
  /** Drains and stops. @returns how many accepted messages did not reach the database; more calls await the same end. */
  stop(): Promise<number>
}

export interface ServerOptions {
  readonly config: Config
  readonly serve: Serve
  readonly fileBody: FileBody
  readonly log: Log
  readonly version: string
  /** The listener is lost and is not to be healed: the process is to stop. */
  readonly lost: () => void
  readonly pingEvery?: number
}

/**
 * Messages longer than this are ended by the runtime before they are whole. Every longer one is too large for NOTIFY, but up to
 * here the reason says so.
 */
const MESSAGE_BYTES = 256 * 1024

/** What may wait for one slow reader, in bytes. */
const SEND_BUFFER_BYTES = 1_048_576

/** Milliseconds that clients get to answer their close frame. */
const CLOSE_PATIENCE = 1000

/** Binds the port at once; plain HTTP is served from then on. */
export function createServer({ config, serve, fileBody, log, version, lost, pingEvery }: ServerOptions): Server {
  const database = createDatabase(config.database)
  const notifier = createNotifier(database, config.listenChannel, log)
  const hub = createHub((topic, text) => running.publish(topic, text))
  const sessions = createSessions({
    hub,
    notifier,
    metaChannel: config.metaChannel,
    log,
    ...(pingEvery === undefined ? {} : { pingEvery }),
  })
  const listener = createListener({
    database,
    notifier,
    channel: config.listenChannel,
    checkInterval: config.checkInterval,
    log,
    notified: (notification) => hub.deliver(channelOf(notification) ?? config.listenChannel, notification),
    lost: () => {
      if (stopping !== undefined) return false
      const isHealed = config.checkInterval > 0
      if (!isHealed) lost()
      return isHealed
    },
    restored: (from, to) => log.info('listening again', { 'missed-from': from / 1000, 'missed-to': to / 1000 }),
  })
  let hasListened = false
  let stopping: Promise<number> | undefined
  const routes = createRoutes({
    keys: config.keys,
    rootPath: config.rootPath,
    fileBody,
    sessions,
    log,
    product: `postgres-websockets/${version}`,
    admission: () => (stopping !== undefined ? 'SHUTTING_DOWN' : hasListened ? undefined : 'NOT_READY'),
  })
  const running: RunningServer = serve(
    { host: config.host, port: config.port, tls: config.tls, sendBufferBytes: SEND_BUFFER_BYTES, messageBytes: MESSAGE_BYTES },
    {
      request: (request, upgrade) => routes(request, { upgrade }),
      open: sessions.open,
      message: sessions.message,
      pong: sessions.pong,
      close: sessions.close,
    },
  )

  /** Accepted messages go first, then the clients; whoever keeps sending is closed at half time. */
  async function drain(): Promise<number> {
    const end = Date.now() + config.shutdownTimeout
    const left = (): number => Math.max(0, end - Date.now())
    log.info('draining', { clients: sessions.count })
    running.stopAccepting()
    notifier.release()
    await orAfter(left() / 2, notifier.drained())
    await sessions.closeAll(Math.min(CLOSE_PATIENCE, left()))
    await orAfter(left(), notifier.drained())
    const lostMessages = notifier.stop()
    listener.stop()
    running.stop()
    if (lostMessages > 0) log.error('stopped with messages that the database did not take', { messages: lostMessages })
    else log.info('stopped')
    return lostMessages
  }

  return {
    port: running.port,
    async start() {
      await listener.start(Math.max(1, config.retries))
      hasListened = true
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
