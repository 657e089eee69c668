/**
 * Owns what a connection to PostgreSQL is for the rest of the program, and the error that it fails with. A connection that ends is
 * not revived: whoever uses it must know that it was away.
 */
import { codeOf, messageOf } from '../fault.ts'

export interface Database {
  /** Tries the hosts in their order until one accepts the connection. @throws DatabaseError of the last one tried. */
  connect(): Promise<Connection>
  /** As `connect`, with a first channel to LISTEN on: a connection either sends or listens. */
  connectListening(channel: string, notified: Notified): Promise<ListeningConnection>
}

/** A connection to one server. */
export interface Connection {
  readonly server: Server
  /** Settled when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>
  /** Runs a statement and returns its rows. Statements need not wait for each other's answers. @throws DatabaseError */
  query(statement: string, parameters?: readonly string[]): Promise<readonly Row[]>
  /** Ends the connection at once. Statements without an answer are rejected, with the reason where one is given. */
  close(reason?: DatabaseError): void
}

/** A connection that LISTENs. */
export interface ListeningConnection extends Connection {
  /**
   * LISTENs on all of the channels or on none, in one transaction. Each notification goes to `notified`; those that were read together
   * arrive within one tick.
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

/** What was found when the connection was made. */
export interface Server {
  /** Host and port, or the path of a unix-domain socket. */
  readonly place: string
  readonly version: string
  readonly encrypted: boolean
  /** The process that serves this connection. */
  readonly backend: Backend
}

/** One of PostgreSQL's processes. Its number alone does not name it: PostgreSQL may have given that to another process since. */
export interface Backend {
  readonly pid: string
  /** A timestamp that is read alike under every `DateStyle` and time zone. */
  readonly startedAt: string
}

/**
 * SQLSTATE classes after which the same statement may succeed: connection, transaction rollback, resources, limits (a full
 * notification queue), object state, operator intervention, system, and a read-only transaction (a primary that became a replica).
 */
const PASSING = /^(08|40|53|54|55|57|58|25006)/

/** What PostgreSQL or the network answered. Its message may be logged: it holds no statement, no parameter and no password. */
export class DatabaseError extends Error {
  /**
   * @param code SQLSTATE (manual, "PostgreSQL Error Codes"), the system's code, or postgres.js's own.
   * @param answered whether PostgreSQL answered at all.
   * @param answer the message without the place that it comes from, which is nothing for clients.
   */
  constructor(
    message: string,
    readonly code: string,
    readonly answered: boolean,
    readonly answer = message,
  ) {
    super(message)
  }

  /** Whether the same statement may succeed after a while. */
  get isPassing(): boolean {
    return !this.answered || PASSING.test(this.code)
  }
}

export const asDatabaseError = (error: unknown): DatabaseError =>
  error instanceof DatabaseError ? error : new DatabaseError(messageOf(error), codeOf(error) ?? 'UNKNOWN', false)

/** The error, with the place that it comes from in its message. */
export function errorAt(place: string, error: unknown): DatabaseError {
  const fault = asDatabaseError(error)
  if (fault.message.startsWith(place)) return fault
  return new DatabaseError(`${place} ${fault.message}`, fault.code, fault.answered, fault.answer)
}
