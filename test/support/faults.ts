/** Owns faults of PostgreSQL that need more than a statement. */
import postgres from 'postgres'
import type { Postgres } from './postgres.ts'
import type { Side } from './proxy.ts'

type Server = Pick<Postgres, 'uri'>

/** The server settings that a blocked NOTIFY needs: nobody but who blocks waits for a standby. */
export const BLOCKABLE = { synchronous_commit: 'local' }

/**
 * Blocks every NOTIFY: a transaction that notified waits, in its commit, for a synchronous standby that is absent, and holds the lock
 * that serialises such commits. @returns what lets all go on.
 */
export async function blockNotify({ uri }: Server): Promise<() => Promise<void>> {
  const admin = postgres(uri, { max: 1, onnotice: () => undefined })
  const holder = postgres(uri, { max: 1, onnotice: () => undefined, connection: { synchronous_commit: 'on' } })
  await admin`alter system set synchronous_standby_names = 'absent'`
  await admin`select pg_reload_conf()`
  const blocking = async (): Promise<boolean> => {
    const [waiting] = await admin`select from pg_stat_activity where wait_event = 'SyncRep'`
    return waiting !== undefined
  }
  // The setting takes a moment to reach the session.
  const held = (async () => {
    while (!(await blocking())) await Promise.race([holder`select pg_catalog.pg_notify('blocked', '')`, Bun.sleep(100)])
  })()
  await held
  return async () => {
    await admin`alter system reset synchronous_standby_names`
    await admin`select pg_reload_conf()`
    await holder.end()
    await admin.end()
  }
}

/** Whether a session of the program is of a side, by its last statement: all that does not send belongs to the one that LISTENs. */
const isOf = (sql: postgres.Sql, side: Side | undefined) => {
  if (side === undefined) return sql`true`
  return side === 'sending' ? sql`query like '%pg_notify(%'` : sql`query not like '%pg_notify(%'`
}

/** Stops PostgreSQL's processes that serve the program, as a machine does that is out of breath. @returns what lets them go on. */
export async function stopBackends({ uri }: Server, side?: Side): Promise<() => void> {
  const admin = postgres(uri, { max: 1 })
  const found =
    await admin`select pid from pg_stat_activity where application_name = 'postgres-websockets' and ${isOf(admin, side)}`
  await admin.end()
  const pids = found.map(({ pid }) => Number(pid))
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  return () => {
    for (const pid of pids) process.kill(pid, 'SIGCONT')
  }
}

/** Ends the sessions of the program. @returns how many there were. */
export async function endBackends({ uri }: Server, side?: Side): Promise<number> {
  const admin = postgres(uri, { max: 1 })
  const ended = await admin`select pg_terminate_backend(pid) from pg_stat_activity
    where application_name = 'postgres-websockets' and ${isOf(admin, side)}`
  await admin.end()
  return ended.count
}
