/** Owns how one connection to one host is opened: whether the server fits, and no setting of the role gets in the session's way. */
import { type Connection, DatabaseError, type ListeningConnection, type Notified } from './connection.ts'
import { type Conninfo, type Host, place } from './conninfo.ts'
import { createConnection } from './protocol.ts'
import { openTransport, type Transport } from './transport.ts'

/** The first channel of a connection that LISTENs. */
export interface Listening {
  readonly channel: string
  readonly notified: Notified
}

/** @param listening undefined for a connection that sends. @throws what the server or the network answered. */
export async function openConnection(
  conninfo: Conninfo,
  host: Host,
  encrypted: boolean,
  target: Conninfo['target'],
  listening: Listening | undefined,
): Promise<ListeningConnection> {
  const transport = await openTransport(conninfo, host, encrypted)
  const connection = createConnection(conninfo, host, transport, listening === undefined)
  const late = new DatabaseError(`did not answer within ${conninfo.connectTimeout} ms`, 'CONNECT_TIMEOUT', false)
  const timer = setTimeout(() => connection.close(late), conninfo.connectTimeout)
  try {
    if (listening) await unlessCanceled(() => connection.listenFirst(listening.channel, listening.notified))
    await overrideSettings(connection)
    const [found] = await connection.query(
      `select current_setting('server_version') as version, pg_is_in_recovery() as replica,
        current_setting('transaction_read_only') = 'on' as readonly, pid::text,
        to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00') as started
      from pg_stat_get_activity(pg_backend_pid())`,
    )
    const isReplica = found?.replica === true
    const misfit = misfitOf(target, isReplica, found?.readonly === true)
    if (misfit) throw new DatabaseError(`is ${misfit}, but target_session_attrs=${target}`, 'TARGET_SESSION_ATTRS', true)
    // It can neither NOTIFY nor LISTEN, and a connection that is kept would never find the primary among the other hosts.
    if (isReplica) throw new DatabaseError('is a replica, which takes no notifications: connect to the primary', 'REPLICA', true)
    const backend = { pid: String(found?.pid), startedAt: String(found?.started) }
    return {
      ...connection,
      server: { place: place(host), version: String(found?.version), encrypted: isEncrypted(transport), backend },
    }
  } catch (error) {
    connection.close()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/** SQLSTATE query_canceled. */
const CANCELED = '57014'

/** How often a short statement is tried while the role's `statement_timeout` applies, which may be shorter than it takes. */
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
 * Switches off the time limits that a role or database sets for people's sessions. They would end a session that only listens, again
 * and again, or a statement that waits for its turn. Not every version of PostgreSQL knows each of them. And what waits for another
 * transaction must see what that has committed: so isolation is what it is by default. They are not set among the
 * startup parameters, because poolers refuse them there.
 */
async function overrideSettings(connection: Pick<Connection, 'query'>): Promise<void> {
  await unlessCanceled(() => connection.query('set statement_timeout = 0'))
  await connection.query(
    `select set_config(name, '0', false) from pg_settings
      where name in ('lock_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
      union all select set_config('default_transaction_isolation', 'read committed', false)`,
  )
}

/** What the server is, where that does not fit `target_session_attrs`. */
function misfitOf(target: Conninfo['target'], isReplica: boolean, isReadOnly: boolean): string | undefined {
  if (target === 'primary' && isReplica) return 'a replica'
  if (target === 'standby' && !isReplica) return 'a primary'
  if (target === 'read-write' && isReadOnly) return isReplica ? 'a replica' : 'read-only'
  if (target === 'read-only' && !isReadOnly) return 'read-write'
  return undefined
}

const isEncrypted = (transport: Transport): boolean => 'encrypted' in transport && transport.encrypted === true
