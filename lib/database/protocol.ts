/** Owns the protocol of PostgreSQL over an open transport, as postgres.js speaks it. */
import postgres from 'postgres'
import { DatabaseError, errorAt, type ListeningConnection, type Notified, type Row } from './connection.ts'
import { type Conninfo, type Host, place } from './conninfo.ts'
import type { Transport } from './transport.ts'

/** A connection before it is known which server it leads to. */
interface NewConnection extends Omit<ListeningConnection, 'server'> {
  /** LISTENs on the first channel. From then on all statements use the connection on which the library listens. */
  listenFirst(channel: string, notified: Notified): Promise<void>
}

/** What the library keeps of a channel, as far as this program uses it. */
interface LibraryChannel {
  readonly listeners: readonly { readonly fn: Notified }[]
}

/**
 * Speaks PostgreSQL over a transport until that closes.
 *
 * @param prepares whether statements are prepared. Otherwise each one takes a round trip of its own before it is executed.
 */
export function createConnection(conninfo: Conninfo, host: Host, transport: Transport, prepares: boolean): NewConnection {
  let isUsed = false
  let isClosed = false
  // postgres.js would reconnect by itself, but there is only this one transport.
  const handOver = (): Transport => {
    if (isUsed) throw sessionEnded()
    isUsed = true
    return transport
  }
  const sql = postgres({
    user: conninfo.user,
    database: conninfo.database,
    password: host.password ?? '',
    connection: conninfo.startup,
    ssl: false,
    max: 1,
    max_lifetime: null,
    connect_timeout: conninfo.connectTimeout / 1000,
    fetch_types: false,
    debug: false,
    onnotice: () => undefined,
    // The LISTEN of each channel is another statement: prepared ones would pile up on both sides.
    prepare: prepares,
    // The library reads these options, but its types do not know them. It takes the ones that are missing from the environment.
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
  // sql.listen() uses an instance of its own, which it makes from the same options when it is first called.
  const listen = sql.listen as typeof sql.listen & { sql?: typeof sql; channels?: Record<string, LibraryChannel> }
  // The library looks names up in a plain object, where "constructor" has a value before anyone listens.
  const channels: Record<string, LibraryChannel> = Object.create(null)
  listen.channels = channels

  // The library never answers a statement that begins between the transport's error and its close.
  const waiting = new Set<(error: Error) => void>()
  const untilClosed = <T>(begin: () => PromiseLike<T>): Promise<T> => {
    if (isClosed) return Promise.reject(sessionEnded())
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    waiting.add(reject)
    begin().then(resolve, (error) => reject(errorAt(place(host), ownError(error))))
    return promise.finally(() => waiting.delete(reject))
  }
  const closed = new Promise<void>((resolve) => {
    transport.once('close', () => {
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
    // The library's listen() is one transaction for each channel. A simple query with several statements is one transaction for all.
    listen: async (names, notified) => {
      const own = new Map(names.map((name) => [name, { listeners: [{ fn: (text: string) => notified(name, text) }] }]))
      for (const [name, channel] of own) channels[name] = channel
      try {
        await untilClosed(() => (listen.sql ?? sql).unsafe(listenStatements(names)))
      } catch (error) {
        // A channel may have been given up meanwhile, and be listened to anew.
        for (const [name, channel] of own) if (channels[name] === channel) delete channels[name]
        throw error
      }
    },
    // In one simple query: sent as two, a LISTEN of somebody else on this connection might come between them and be undone as well.
    tryListen: (names) => untilClosed(async () => void (await (listen.sql ?? sql).unsafe(`${listenStatements(names)};rollback`))),
    unlisten: (channel) =>
      untilClosed(async () => {
        // The library's unlisten() exists only once LISTEN was answered. This one is sent behind the LISTEN and need not wait for it.
        delete channels[channel]
        await (listen.sql ?? sql).unsafe(`unlisten ${quotedName(channel)}`)
      }),
    close: (reason) => {
      if (reason) for (const reject of waiting) reject(reason)
      transport.destroy()
    },
  }
}

const quotedName = (name: string): string => `"${name.replaceAll('"', '""')}"`

const listenStatements = (names: readonly string[]): string => names.map((name) => `listen ${quotedName(name)}`).join(';')

const sessionEnded = (): DatabaseError => new DatabaseError('the session has ended', 'CONNECTION_CLOSED', false)

/** An error of PostgreSQL itself says that it answered. */
const ownError = (error: unknown): unknown =>
  error instanceof postgres.PostgresError ? new DatabaseError(error.message, error.code, true) : error
