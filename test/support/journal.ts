/** Owns a database of its own with the journal installed, for tests of the journal alone. */
import postgres from 'postgres'
import { schema } from '../../lib/database/schema/install.ts'
import { type Postgres, startPostgres } from './postgres.ts'

export interface JournalDatabase {
  readonly server: Postgres
  readonly uri: string
  /** One session of the owner. */
  readonly sql: postgres.Sql
  /** Another session, of the owner or of another role. */
  session(role?: string): postgres.Sql
  /** One look; the position up to which the journal reaches, and how many messages are new. */
  look(): Promise<{ readonly head: number; readonly fresh: number }>
  /** All messages of the journal in its order, as `channel:payload`. */
  all(): Promise<string[]>
  stop(): Promise<void>
}

/** @param settings lines of postgresql.conf. */
export async function startJournal(settings: Readonly<Record<string, string>> = {}): Promise<JournalDatabase> {
  const server = await startPostgres({ settings: { max_connections: '100', ...settings } })
  const open: postgres.Sql[] = []
  const session = (role?: string): postgres.Sql => {
    const opened = postgres(server.uri, {
      max: 1,
      onnotice: () => undefined,
      fetch_types: false,
      ...(role === undefined ? {} : { username: role }),
    })
    open.push(opened)
    return opened
  }
  const sql = session()
  await sql.unsafe(schema)
  await sql`select pgws.begin_session('1 day')`
  return {
    server,
    uri: server.uri,
    sql,
    session,
    async look() {
      const [found] = await sql`select head::float8 as head, fresh from pgws.look()`
      return { head: Number(found?.head), fresh: Number(found?.fresh) }
    },
    async all() {
      const rows = await sql`select channel, payload from pgws.read(0, 1000000, 2000000000, 1)`
      return rows.map(({ channel, payload }) => `${channel}:${payload}`)
    },
    async stop() {
      // The library's end() waits for ever now and then; the server ends its sessions anyway.
      const ended = open.map((opened) => opened.end({ timeout: 1 }))
      await server.stop()
      await Promise.all(ended)
    },
  }
}
