/** Owns what PostgreSQL does for the servers of the scaling bench, counted where it does not depend on the machine. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { startJournal } from '../../test/support/journal.ts'

export interface Usage {
  /** Seconds of CPU time of all processes of PostgreSQL that are there. */
  readonly cpu: number
  /** How often a session of the servers was woken. */
  readonly wakeUps: number
  /** Statements of the servers, and calls of the function by which they read the journal. */
  readonly statements: number
  readonly reads: number
  /** Bytes of the write-ahead log. */
  readonly wal: number
  /** Sessions of the servers, and bytes of memory that they share with nobody. */
  readonly sessions: number
  readonly memory: number
}

/** Of the servers, so that what they do is counted apart from the load. */
const ROLE = 'servers'

/** Empty for a process that has ended meanwhile: PostgreSQL has some that come for a moment. */
function proc(pid: number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8')
  } catch {
    return ''
  }
}

/** Seconds, from the scheduler's nanoseconds. */
const cpuOf = (pid: number): number => Number(proc(pid, 'schedstat').split(' ')[0]) / 1e9

const wakeUpsOf = (pid: number): number => Number(/\nvoluntary_ctxt_switches:\s+(\d+)/.exec(proc(pid, 'status'))?.[1] ?? 0)

const privateBytes = (pid: number): number =>
  [...proc(pid, 'smaps_rollup').matchAll(/Private_(?:Clean|Dirty):\s+(\d+)/g)].reduce((sum, [, kB]) => sum + Number(kB) * 1024, 0)

/** The postmaster and its children. */
function processesOf(dataFolder: string): number[] {
  const postmaster = Number(readFileSync(join(dataFolder, 'postmaster.pid'), 'utf8').split('\n')[0])
  const isChild = (pid: number): boolean => Number(/\nPPid:\s+(\d+)/.exec(proc(pid, 'status'))?.[1]) === postmaster
  return [postmaster, ...readdirSync('/proc').map(Number).filter(isChild)]
}

export async function startDatabase() {
  const place = await startJournal({
    fsync: 'on',
    synchronous_commit: 'on',
    max_wal_size: '8GB',
    shared_preload_libraries: 'pg_stat_statements',
    'pg_stat_statements.track': 'top',
  })
  await place.sql`create extension pg_stat_statements`
  await place.sql.unsafe(`create role ${ROLE} login superuser password '${place.server.password}'`)
  return {
    sql: place.sql,
    uri: place.uri,
    serversUri: place.uri.replace('//postgres:', `//${ROLE}:`),
    async usage(): Promise<Usage> {
      const pids = (await place.sql`select pid from pg_stat_activity where usename = ${ROLE}`).map(({ pid }) => Number(pid))
      const [counted] = await place.sql`
        select sum(calls)::int8 as statements, coalesce(sum(calls) filter (where query like '%pgws.read(%'), 0)::int8 as reads,
          (pg_current_wal_insert_lsn() - '0/0')::int8 as wal
        from pg_stat_statements(true) as s join pg_roles as r on r.oid = s.userid where r.rolname = ${ROLE}`
      const sum = (list: readonly number[], of: (pid: number) => number): number => list.reduce((all, pid) => all + of(pid), 0)
      return {
        cpu: sum(processesOf(place.server.dataFolder), cpuOf),
        wakeUps: sum(pids, wakeUpsOf),
        statements: Number(counted?.statements),
        reads: Number(counted?.reads),
        wal: Number(counted?.wal),
        sessions: pids.length,
        memory: sum(pids, privateBytes),
      }
    },
    stop: place.stop,
  }
}

export type Database = Awaited<ReturnType<typeof startDatabase>>
