/** Owns the transport to a PostgreSQL server: addresses, TCP and unix-domain sockets, and TLS as `sslmode` asks. Not the protocol above it. */
import { lookup } from 'node:dns/promises'
import { connect, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { DatabaseError } from './connection.ts'
import type { Conninfo, Host } from './conninfo.ts'

export type Transport = Socket

/** Connects to the first address of a host that answers, with TLS where that is wanted and the server has it. */
export async function openTransport(conninfo: Conninfo, host: Host, encrypted: boolean): Promise<Transport> {
  const addresses =
    host.isSocket || isIP(host.address)
      ? [host.address]
      : (await lookup(host.address, { all: true })).map(({ address }) => address)
  let last: unknown
  for (const address of conninfo.shuffle ? shuffled(addresses) : addresses) {
    const transport = host.isSocket ? connect(address) : connect(host.port, address)
    // An error event without a listener ends the process, and one may come before the protocol listens. The close event follows it.
    transport.on('error', () => undefined)
    try {
      await settled(transport, 'connect', conninfo.connectTimeout)
      if (!host.isSocket) transport.setNoDelay(true)
      if (!host.isSocket && conninfo.keepalive > 0) transport.setKeepAlive(true, conninfo.keepalive * 1000)
      return encrypted ? await secure(transport, conninfo, host) : transport
    } catch (error) {
      transport.destroy()
      last = error
    }
  }
  throw last
}

/** Code of the SSLRequest message (manual, "Message Formats"). */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

/** Asks for TLS. With sslmode=prefer, a server that has none is used without. */
async function secure(plain: Transport, conninfo: Conninfo, host: Host): Promise<Transport> {
  const { mode, ca, cert, key } = conninfo.tls
  plain.write(SSL_REQUEST)
  const answer = await settled<Buffer>(plain, 'data', conninfo.connectTimeout)
  // The server sends one byte. More can only come from somebody in between who injects text as the server's (CVE-2021-23222).
  if (answer.length !== 1) throw new DatabaseError('sent text before TLS was set up', 'TLS', true)
  if (answer.toString() !== 'S') {
    if (mode === 'prefer') return plain
    throw new DatabaseError(`has no TLS, but sslmode=${mode} wants it`, 'TLS', true)
  }
  const secured = connectTls({
    socket: plain,
    host: host.name,
    ...(isIP(host.name) ? {} : { servername: host.name }),
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    rejectUnauthorized: mode.startsWith('verify'),
    ...(mode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
  })
  try {
    await settled(secured, 'secureConnect', conninfo.connectTimeout)
    return secured
  } catch (error) {
    secured.destroy()
    throw error
  }
}

/** Waits for one event. @throws the transport's error, or DatabaseError when it closes or the time passes first. */
function settled<T>(transport: Transport, event: string, timeout: number): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const done = (act: () => void) => () => {
      clearTimeout(timer)
      transport.off(event, arrived).off('error', failed).off('close', ended)
      act()
    }
    const ended = done(() => reject(new DatabaseError('closed the connection', 'CONNECTION_CLOSED', false)))
    const arrived = (value: T): void => done(() => resolve(value))()
    const failed = (error: Error): void => done(() => reject(error))()
    const timer = setTimeout(
      done(() => reject(new DatabaseError(`did not answer within ${timeout} ms`, 'CONNECT_TIMEOUT', false))),
      timeout,
    )
    transport.once(event, arrived).once('error', failed).once('close', ended)
  })
}

export function shuffled<T>(items: readonly T[]): readonly T[] {
  return items
    .map((item) => ({ item, order: Math.random() }))
    .sort((one, other) => one.order - other.order)
    .map(({ item }) => item)
}
