/** Owns the way to a PostgreSQL server: addresses, sockets, and TLS as `sslmode` wants it. Speaks nothing of the protocol behind it. */
import { lookup } from 'node:dns/promises'
import { connect as connectSocket, isIP, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import type { Conninfo, Host } from './conninfo.ts'

/**
 * SQLSTATE classes after which the same statement may succeed: connection, transaction rollback, resources, limits (a full
 * notification queue), object state, operator intervention, system, and a read-only transaction (a primary that became a replica).
 */
const PASSING = /^(08|40|53|54|55|57|58|25006)/

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

  /** Whether the same statement may succeed after a while. */
  get isPassing(): boolean {
    return !this.answered || PASSING.test(this.code)
  }
}

/** Connects to the first address of a host that answers, and turns to TLS where that is wanted and to be had. */
export async function openSocket(conninfo: Conninfo, host: Host, encrypted: boolean): Promise<Socket> {
  const addresses =
    host.isSocket || isIP(host.address)
      ? [host.address]
      : (await lookup(host.address, { all: true })).map(({ address }) => address)
  let last: unknown
  for (const address of conninfo.shuffle ? shuffled(addresses) : addresses) {
    const socket = host.isSocket ? connectSocket(address) : connectSocket(host.port, address)
    // A fault that nobody listens for would end the process: one may come before a session has begun to. The close follows it.
    socket.on('error', () => undefined)
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

export function shuffled<T>(items: readonly T[]): readonly T[] {
  return items
    .map((item) => ({ item, order: Math.random() }))
    .sort((one, other) => one.order - other.order)
    .map(({ item }) => item)
}
