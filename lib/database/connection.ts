/**
 * Owns connections to PostgreSQL: where a connection string leads, one session at a time. A session that ends is not revived
 * here, for whoever uses it must know that it was away.
 */
import type { Socket } from 'node:net'
import postgres from 'postgres'
import { codeOf, messageOf } from '../fault.ts'
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
  /**
   * LISTENs on channels in one transaction, so that all stand at once. Hands each notification to `notified`, all that came in one
   * read within one tick.
   *
   * @throws DatabaseError with none of the channels listened to.
   */
  listen(channels: readonly string[], notified: (channel: string, notification: string) => void): Promise<void>
  /** Whether PostgreSQL would listen to these channels: as `listen`, but undone at once. @throws DatabaseError */
  tryListen(channels: readonly string[]): Promise<void>
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
  /** The process that serves this session. */
  readonly backend: Backend
}

/** One of PostgreSQL's processes. A number alone may be another's by now. */
export interface Backend {
  readonly pid: string
  /** A timestamp that sessions of every `DateStyle` and time zone read alike. */
  readonly startedAt: string
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
    if (channel !== undefined && notified !== undefined) await unlessCanceled(() => session.listenFirst(channel, notified))
    await liftTimeouts(session)
    const [found] = await session.query(
      `select current_setting('server_version') as version, pg_is_in_recovery() as replica,
        current_setting('transaction_read_only') = 'on' as readonly, pid::text,
        to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00') as started
      from pg_stat_get_activity(pg_backend_pid())`,
    )
    const isReplica = found?.replica === true
    const misses = unfit(target, isReplica, found?.readonly === true)
    if (misses) throw new DatabaseError(`is ${misses}, but target_session_attrs=${target}`, 'TARGET_SESSION_ATTRS', true)
    // It can neither NOTIFY nor LISTEN, and a session that is kept would never find the primary among the other hosts.
    if (isReplica) throw new DatabaseError('is a replica, which takes no notifications: connect to the primary', 'REPLICA', true)
    const backend = { pid: String(found?.pid), startedAt: String(found?.started) }
    const server = { place: place(host), version: String(found?.version), encrypted: isEncrypted(socket), backend }
    return { ...session, server }
  } catch (error) {
    session.close()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/** SQLSTATE query_canceled. */
const CANCELED = '57014'

/** Attempts to run a short statement while the role's `statement_timeout` holds, which may be shorter than that takes. */
const ATTEMPTS = 20

async function unlessCanceled(run: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await run()
      return
    } catch (error) {
      if (!(error instanceof DatabaseError && error.code === CANCELED && attempt < ATTEMPTS)) throw error
    }
  }
}

/**
 * Switches off the time limits that a role or database sets for people's sessions: they would end a session that only listens, again
 * and again, or a statement that waits for its turn. Not every version knows each of them. Set when the session stands, for poolers
 * refuse them among the parameters of its start.
 */
async function liftTimeouts(session: Pick<Connection, 'query'>): Promise<void> {
  await unlessCanceled(() => session.query('set statement_timeout = 0'))
  await session.query(
    `select set_config(name, '0', false) from pg_settings
      where name in ('lock_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')`,
  )
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

export const place = (host: Host): string => (host.isSocket ? host.address : `${host.name}:${host.port}`)

interface Session extends Omit<ListeningConnection, 'server'> {
  /** LISTENs on the first channel, from which on all statements go over the session that the library listens on. */
  listenFirst(channel: string, notified: Notified): Promise<void>
}

/** What the library keeps of a channel, as far as this program uses it. */
interface LibraryChannel {
  readonly listeners: readonly { readonly fn: Notified }[]
}

/**
 * Speaks PostgreSQL over a connected socket, until that closes.
 *
 * @param prepares whether statements are prepared: without, each takes a round trip for itself before it is executed.
 */
function createSession(conninfo: Conninfo, host: Host, socket: Socket, prepares: boolean): Session {
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
  const listen = sql.listen as typeof sql.listen & { sql?: typeof sql; channels?: Record<string, LibraryChannel> }
  // The library looks names up in a plain object, where "constructor" has a value before anyone listens.
  const channels: Record<string, LibraryChannel> = Object.create(null)
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
    listenFirst: (channel, notified) =>
      untilClosed(async () => {
        delete channels[channel]
        await sql.listen(channel, notified)
      }),
    // The library's own listen() is one transaction a channel. Several statements of one simple query are one transaction.
    listen: async (names, notified) => {
      const own = new Map(names.map((name) => [name, { listeners: [{ fn: (text: string) => notified(name, text) }] }]))
      for (const [name, channel] of own) channels[name] = channel
      try {
        await untilClosed(() => (listen.sql ?? sql).unsafe(listenStatements(names)))
      } catch (error) {
        // One that was given up meanwhile may be listened to anew.
        for (const [name, channel] of own) if (channels[name] === channel) delete channels[name]
        throw error
      }
    },
    // One message to the server: between two, a LISTEN of somebody else on this session would be undone as well.
    tryListen: (names) => untilClosed(async () => void (await (listen.sql ?? sql).unsafe(`${listenStatements(names)};rollback`))),
    unlisten: (channel) =>
      untilClosed(async () => {
        // The library's own unlisten can be had only once LISTEN was answered; sent behind it, in its order, this one need not wait.
        delete channels[channel]
        await (listen.sql ?? sql).unsafe(`unlisten ${quotedName(channel)}`)
      }),
    close: (reason) => {
      if (reason) for (const reject of waiting) reject(reason)
      socket.destroy()
    },
  }
}

const quotedName = (name: string): string => `"${name.replaceAll('"', '""')}"`

const listenStatements = (names: readonly string[]): string => names.map((name) => `listen ${quotedName(name)}`).join(';')

const sessionEnded = (): DatabaseError => new DatabaseError('the session has ended', 'CONNECTION_CLOSED', false)

function describe(error: unknown, host: Host): DatabaseError {
  if (error instanceof DatabaseError && error.message.startsWith(place(host))) return error
  const answered = error instanceof DatabaseError ? error.answered : error instanceof postgres.PostgresError
  return new DatabaseError(`${place(host)} ${messageOf(error)}`, codeOf(error) ?? 'UNKNOWN', answered)
}

export function asDatabaseError(error: unknown): DatabaseError {
  if (error instanceof DatabaseError) return error
  return new DatabaseError(messageOf(error), 'UNKNOWN', false)
}
