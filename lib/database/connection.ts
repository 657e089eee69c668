/**
 * Owns connections to PostgreSQL: where a connection string leads, one session at a time. A session that ends is not revived
 * here, for whoever uses it must know that it was away.
 */
import type { Socket } from 'node:net'
import postgres from 'postgres'
import type { Conninfo, Host } from './conninfo.ts'
import { DatabaseError, openSocket, shuffled } from './transport.ts'

export { DatabaseError }

/** A session with one server. */
export interface Connection {
  readonly server: Server
  /** Settled when the session has ended, whoever ended it. */
  readonly closed: Promise<void>
  /** Runs a statement and returns its rows; what waits for an answer does not hold the next one up. @throws DatabaseError */
  query(statement: string, parameters?: readonly string[]): Promise<readonly Row[]>
  /** Ends the session at once. What waits for an answer is rejected, with the reason where one is given. */
  close(reason?: DatabaseError): void
}

/** A session that LISTENs. */
export interface ListeningConnection extends Connection {
  /** Hands each notification of a channel to `notified`, all that came in one read within one tick. @throws DatabaseError */
  listen(channel: string, notified: Notified): Promise<void>
  unlisten(channel: string): Promise<void>
}

export type Row = Readonly<Record<string, unknown>>

export type Notified = (notification: string) => void

/** What a session found at its start. */
export interface Server {
  /** Host and port, or the path of a socket. */
  readonly place: string
  readonly version: string
  readonly encrypted: boolean
  readonly isReplica: boolean
}

export interface Database {
  /** Tries the hosts in their order until one takes the session. @throws DatabaseError of the last one tried. */
  connect(): Promise<Connection>
  /** As `connect`, with a first channel to LISTEN on, for a session either sends or listens. */
  connectListening(channel: string, notified: Notified): Promise<ListeningConnection>
}

/** Milliseconds. A database on a busy machine takes some time to start a session. */
const SHORTEST_SCOUT = 500

/**
 * @param read where and how to connect, asked for each session anew.
 * @param interval milliseconds within which a way that is free again is to be found; 0 leaves that to `connect_timeout`.
 */
export function createDatabase(read: () => Conninfo, interval: number): Database {
  const connect = (channel?: string, notified?: Notified): Promise<ListeningConnection> => {
    const conninfo = read()
    const attempt: Attempt = (limit, heard) => {
      const limited = { ...conninfo, connectTimeout: Math.min(conninfo.connectTimeout, limit) }
      return firstOf(limited, (host, encrypted, target) => open(limited, host, encrypted, target, channel, heard))
    }
    const every = interval > 0 ? Math.max(interval / 2, SHORTEST_SCOUT) : Number.POSITIVE_INFINITY
    return every < conninfo.connectTimeout ? withScouts(attempt, every, notified) : attempt(conninfo.connectTimeout, notified)
  }
  return { connect: () => connect(), connectListening: connect }
}

type Attempt = (limit: number, heard: Notified | undefined) => Promise<ListeningConnection>

/**
 * Connects as `attempt` does, which has all its time, for a database may be slow. But what a silent network swallowed is never answered:
 * beside it a scout sets out every so many milliseconds, with no more time than that, and wins where the way is free again.
 */
function withScouts(attempt: Attempt, every: number, notified: Notified = () => undefined): Promise<ListeningConnection> {
  return new Promise((resolve, reject) => {
    let isOver = false
    const end = (act: () => void): void => {
      isOver = true
      clearInterval(timer)
      act()
    }
    const run = async (limit: number): Promise<void> => {
      let hasWon = false
      const session = await attempt(limit, (notification) => {
        if (hasWon) notified(notification)
      })
      if (isOver) return session.close()
      hasWon = true
      end(() => resolve(session))
    }
    // Why a scout does not come back says less than what the first attempt will meet.
    const timer = setInterval(() => void run(every).catch(() => undefined), every)
    run(Number.POSITIVE_INFINITY).catch((error) => end(() => reject(error)))
  })
}

type Open = (host: Host, encrypted: boolean, target: Conninfo['target']) => Promise<ListeningConnection>

/** The first place that takes a session, in libpq's order: by target, by host, by encryption. */
async function firstOf(conninfo: Conninfo, attempt: Open): Promise<ListeningConnection> {
  let last = new DatabaseError('there is no host to connect to', 'NO_HOST', false)
  const targets = conninfo.target === 'prefer-standby' ? (['standby', 'any'] as const) : [conninfo.target]
  const hosts = conninfo.shuffle ? shuffled(conninfo.hosts) : conninfo.hosts
  for (const target of targets) {
    for (const host of hosts) {
      for (const encrypted of encryptions(conninfo, host)) {
        try {
          return await attempt(host, encrypted, target)
        } catch (error) {
          last = describe(error, host)
        }
      }
    }
  }
  throw last
}

/** Whether to try TLS, in order (manual, "SSL Mode Descriptions"); a unix-domain socket never is. */
function encryptions({ tls }: Conninfo, host: Host): readonly boolean[] {
  if (host.isSocket || tls.mode === 'disable') return [false]
  if (tls.mode === 'allow') return [false, true]
  if (tls.mode === 'prefer') return [true, false]
  return [true]
}

async function open(
  conninfo: Conninfo,
  host: Host,
  encrypted: boolean,
  target: Conninfo['target'],
  channel: string | undefined,
  notified: Notified | undefined,
): Promise<ListeningConnection> {
  const socket = await openSocket(conninfo, host, encrypted)
  const session = createSession(conninfo, host, socket, channel === undefined)
  const late = new DatabaseError(`did not answer within ${conninfo.connectTimeout} ms`, 'CONNECT_TIMEOUT', false)
  const timer = setTimeout(() => session.close(late), conninfo.connectTimeout)
  try {
    if (channel !== undefined && notified !== undefined) await session.listen(channel, notified)
    const [found] = await session.query(
      `select current_setting('server_version') as version, pg_is_in_recovery() as replica,
        current_setting('transaction_read_only') = 'on' as readonly`,
    )
    const isReplica = found?.replica === true
    const misses = unfit(target, isReplica, found?.readonly === true)
    if (misses) throw new DatabaseError(`is ${misses}, but target_session_attrs=${target}`, 'TARGET_SESSION_ATTRS', true)
    const server = { place: place(host), version: String(found?.version), encrypted: isEncrypted(socket), isReplica }
    return { ...session, server }
  } catch (error) {
    session.close()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/** What a server is that does not fit `target_session_attrs`; undefined when it fits. */
function unfit(target: Conninfo['target'], isReplica: boolean, isReadOnly: boolean): string | undefined {
  if (target === 'primary' && isReplica) return 'a replica'
  if (target === 'standby' && !isReplica) return 'a primary'
  if (target === 'read-write' && isReadOnly) return isReplica ? 'a replica' : 'read-only'
  if (target === 'read-only' && !isReadOnly) return 'read-write'
  return undefined
}

const isEncrypted = (socket: Socket): boolean => 'encrypted' in socket && socket.encrypted === true

const place = (host: Host): string => (host.isSocket ? host.address : `${host.name}:${host.port}`)

/**
 * Speaks PostgreSQL over a connected socket, until that closes.
 *
 * @param prepares whether statements are prepared: without, each takes a round trip for itself before it is executed.
 */
function createSession(conninfo: Conninfo, host: Host, socket: Socket, prepares: boolean): Omit<ListeningConnection, 'server'> {
  let isUsed = false
  let isClosed = false
  // postgres.js would reconnect on its own; the second time there is no socket for it.
  const handOver = (): Socket => {
    if (isUsed) throw sessionEnded()
    isUsed = true
    return socket
  }
  const sql = postgres({
    user: conninfo.user,
    database: conninfo.database,
    password: host.password ?? '',
    connection: conninfo.session,
    ssl: false,
    max: 1,
    max_lifetime: null,
    connect_timeout: conninfo.connectTimeout / 1000,
    fetch_types: false,
    debug: false,
    onnotice: () => undefined,
    // The LISTEN of each channel is another statement: prepared ones would pile up on both sides.
    prepare: prepares,
    // Options that the library reads but its types do not know; what is not given, it takes from the environment.
    ...({
      socket: handOver,
      host: [host.address],
      port: [host.port],
      idle_timeout: null,
      keep_alive: null,
      max_pipeline: 100,
      sslnegotiation: null,
      no_subscribe: true,
    } as object),
  })
  // sql.listen() speaks over an instance of its own, made from the same options when it is first called.
  const listen = sql.listen as typeof sql.listen & { sql?: typeof sql; channels?: Record<string, unknown> }
  // The library looks names up in a plain object, where "constructor" has a value before anyone listens.
  const channels: Record<string, unknown> = Object.create(null)
  listen.channels = channels

  // A statement that is begun between a socket's error and its close would never be answered.
  const waiting = new Set<(error: Error) => void>()
  const untilClosed = <T>(begin: () => PromiseLike<T>): Promise<T> => {
    if (isClosed) return Promise.reject(sessionEnded())
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    waiting.add(reject)
    begin().then(resolve, (error) => reject(describe(error, host)))
    return promise.finally(() => waiting.delete(reject))
  }
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      isClosed = true
      for (const reject of waiting) reject(sessionEnded())
      resolve()
    })
  })
  return {
    closed,
    query: (statement, parameters = []) =>
      untilClosed(() => (listen.sql ?? sql).unsafe<Row[]>(statement, [...parameters], { prepare: true })),
    listen: (channel, notified) =>
      untilClosed(async () => {
        await sql.listen(channel, notified)
      }),
    unlisten: (channel) =>
      untilClosed(async () => {
        // The library's own unlisten can be had only once LISTEN was answered; sent behind it, in its order, this one need not wait.
        delete channels[channel]
        await (listen.sql ?? sql).unsafe(`unlisten "${channel.replaceAll('"', '""')}"`)
      }),
    close: (reason) => {
      if (reason) for (const reject of waiting) reject(reason)
      socket.destroy()
    },
  }
}

const sessionEnded = (): DatabaseError => new DatabaseError('the session has ended', 'CONNECTION_CLOSED', false)

function describe(error: unknown, host: Host): DatabaseError {
  if (error instanceof DatabaseError && error.message.startsWith(place(host))) return error
  const message = error instanceof Error ? error.message : String(error)
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'UNKNOWN'
  const answered = error instanceof DatabaseError ? error.answered : error instanceof postgres.PostgresError
  return new DatabaseError(`${place(host)} ${message}`, code, answered)
}

export function asDatabaseError(error: unknown): DatabaseError {
  if (error instanceof DatabaseError) return error
  return new DatabaseError(error instanceof Error ? error.message : String(error), 'UNKNOWN', false)
}
