/**
 * Owns connections to PostgreSQL: where a connection string leads, one session at a time. A session that ends is not revived
 * here, for whoever uses it must know that it was away.
 */
import { lookup } from 'node:dns/promises'
import { connect as connectSocket, isIP, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import postgres from 'postgres'
import type { Conninfo, Host } from './conninfo.ts'

/** A session with one server. */
export interface Connection {
  readonly server: Server
  /** Settled when the session has ended, whoever ended it. */
  readonly closed: Promise<void>
  /** Runs a prepared statement and returns its rows. @throws DatabaseError */
  query(statement: string, parameters?: readonly string[]): Promise<readonly Row[]>
  /** Ends the session at once. What waits for an answer is rejected. */
  close(): void
}

/** A session that LISTENs. */
export interface ListeningConnection extends Connection {
  /** Hands each notification of a channel to `notified`, all that came in one read within one tick. @throws DatabaseError */
  listen(channel: string, notified: Notified): Promise<void>
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

/** What PostgreSQL or the way to it answered. Its message is fit for a log: no statement, no parameter, no password. */
export class DatabaseError extends Error {
  /**
   * @param code SQLSTATE (manual, "PostgreSQL Error Codes"), the system's code, or postgres.js's own.
   * @param answered whether PostgreSQL answered at all.
   */
  constructor(
    message: string,
    readonly code: string,
    readonly answered: boolean,
  ) {
    super(message)
  }
}

export function createDatabase(conninfo: Conninfo): Database {
  const connect = (channel?: string, notified?: Notified): Promise<ListeningConnection> =>
    firstOf(conninfo, (host, encrypted, target) => open(conninfo, host, encrypted, target, channel, notified))
  return { connect: () => connect(), connectListening: connect }
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

function shuffled<T>(items: readonly T[]): readonly T[] {
  return items
    .map((item) => ({ item, order: Math.random() }))
    .sort((one, other) => one.order - other.order)
    .map(({ item }) => item)
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
  const session = createSession(conninfo, host, socket)
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

/** Speaks PostgreSQL over a connected socket, until that closes. */
function createSession(conninfo: Conninfo, host: Host, socket: Socket): Omit<ListeningConnection, 'server'> {
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
    // LISTEN takes no parameters and each channel's is another statement: prepared ones would pile up on both sides.
    prepare: false,
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
  const listen = sql.listen as typeof sql.listen & { sql?: typeof sql; channels?: object }
  // The library looks names up in a plain object, where "constructor" has a value before anyone listens.
  listen.channels = Object.create(null)

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
    close: () => {
      socket.destroy()
    },
  }
}

const sessionEnded = (): DatabaseError => new DatabaseError('the session has ended', 'CONNECTION_CLOSED', false)

/** Connects to the first address of a host that answers, and turns to TLS where that is wanted and to be had. */
async function openSocket(conninfo: Conninfo, host: Host, encrypted: boolean): Promise<Socket> {
  const addresses =
    host.isSocket || isIP(host.address)
      ? [host.address]
      : (await lookup(host.address, { all: true })).map(({ address }) => address)
  let last: unknown
  for (const address of conninfo.shuffle ? shuffled(addresses) : addresses) {
    const socket = host.isSocket ? connectSocket(address) : connectSocket(host.port, address)
    try {
      await settled(socket, 'connect', conninfo.connectTimeout)
      if (!host.isSocket) socket.setNoDelay(true)
      if (!host.isSocket && conninfo.keepalive > 0) socket.setKeepAlive(true, conninfo.keepalive * 1000)
      return encrypted ? await secure(socket, conninfo, host) : socket
    } catch (error) {
      socket.destroy()
      last = error
    }
  }
  throw last
}

/** Code of the SSLRequest message (manual, "Message Formats"). */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

/** Asks for TLS. With sslmode=prefer a server that has none is spoken to as it is. */
async function secure(socket: Socket, conninfo: Conninfo, host: Host): Promise<Socket> {
  const { mode, ca, cert, key } = conninfo.tls
  socket.write(SSL_REQUEST)
  const answer = await settled<Buffer>(socket, 'data', conninfo.connectTimeout)
  // More than the one byte could only be text that somebody in between wants taken for the server's (CVE-2021-23222).
  if (answer.length !== 1) throw new DatabaseError('sent text before TLS was set up', 'TLS', true)
  if (answer.toString() !== 'S') {
    if (mode === 'prefer') return socket
    throw new DatabaseError(`has no TLS, but sslmode=${mode} wants it`, 'TLS', true)
  }
  const encryptedSocket: TLSSocket = connectTls({
    socket,
    host: host.name,
    ...(isIP(host.name) ? {} : { servername: host.name }),
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    rejectUnauthorized: mode.startsWith('verify'),
    ...(mode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
  })
  try {
    await settled(encryptedSocket, 'secureConnect', conninfo.connectTimeout)
    return encryptedSocket
  } catch (error) {
    encryptedSocket.destroy()
    throw error
  }
}

/** Waits for one event of a socket. @throws the socket's error, or DatabaseError when it closes or the time passes first. */
function settled<T>(socket: Socket, event: string, timeout: number): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const done = (act: () => void) => () => {
      clearTimeout(timer)
      socket.off(event, arrived).off('error', failed).off('close', ended)
      act()
    }
    const ended = done(() => reject(new DatabaseError('closed the connection', 'CONNECTION_CLOSED', false)))
    const arrived = (value: T): void => done(() => resolve(value))()
    const failed = (error: Error): void => done(() => reject(error))()
    const timer = setTimeout(
      done(() => reject(new DatabaseError(`did not answer within ${timeout} ms`, 'CONNECT_TIMEOUT', false))),
      timeout,
    )
    socket.once(event, arrived).once('error', failed).once('close', ended)
  })
}

function describe(error: unknown, host: Host): DatabaseError {
  if (error instanceof DatabaseError && error.message.startsWith(place(host))) return error
  const message = error instanceof Error ? error.message : String(error)
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'UNKNOWN'
  const answered = error instanceof DatabaseError ? error.answered : error instanceof postgres.PostgresError
  return new DatabaseError(`${place(host)} ${message}`, code, answered)
}
