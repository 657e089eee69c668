/**
 * Owns the truth about what was notified: a table that every `pg_notify` of a database writes to in the transaction of its notification.
 * So it holds what was committed and nothing else, also across a crash, and PostgreSQL knows when each transaction was committed.
 */
import postgres from 'postgres'
import type { Postgres } from './postgres.ts'

export interface Committed {
  /** The database's channel. */
  readonly channel: string
  readonly notification: string
  /** When its transaction was committed: UNIX time in milliseconds, with a fraction. */
  readonly at: number
}

export interface Witness {
  /** Notifies in one transaction. @throws when that did not commit, or it is not known whether it did. */
  notify(notifications: readonly { readonly channel: string; readonly notification: string }[]): Promise<void>
  /** What was committed, in the order of the commits. */
  read(): Promise<Committed[]>
  /** Forgets everything. */
  clear(): Promise<void>
}

/** The server settings that a witness needs. */
export const WITNESSED = { track_commit_timestamp: 'on' }

/**
 * The function stands ahead of PostgreSQL's own in the search path. PostgreSQL commits transactions that notify one after the other, so
 * the times of the commits give the order in which all sessions get the notifications.
 */
const INSTALL = `
  create schema if not exists witness;
  create table if not exists witness.notified (
    id bigint generated always as identity, channel text not null, notification text not null
  ) with (autovacuum_enabled = off);
  create or replace function witness.pg_notify(channel text, notification text) returns void language plpgsql as $$
  begin
    if channel not like 'pgws-check-%' then
      insert into witness.notified (channel, notification) values (pg_notify.channel, pg_notify.notification);
    end if;
    perform pg_catalog.pg_notify(channel, notification);
  end $$;
  alter database postgres set search_path = witness, pg_catalog, public;`

/** Milliseconds for a notification of the witness's own. */
const LIMIT = 3000

export async function startWitness({ uri }: Pick<Postgres, 'uri'>): Promise<Witness> {
  const ask = async <T>(run: (sql: postgres.Sql) => Promise<T>, limit?: number): Promise<T> => {
    // A session that dies at the wrong moment leaves a statement of postgres.js without an answer.
    const sql = postgres(uri, { max: 1, onnotice: () => undefined, connect_timeout: 2, connection: { lock_timeout: LIMIT } })
    try {
      return await (limit === undefined ? run(sql) : Promise.race([run(sql), rejectAfter(limit)]))
    } finally {
      void sql.end({ timeout: 0 })
    }
  }
  await ask((sql) => sql.unsafe(INSTALL))
  return {
    notify: (notifications) =>
      ask(
        (sql) =>
          sql`select pg_notify(channel, notification) from unnest(
            ${notifications.map(({ channel }) => channel)}::text[], ${notifications.map(({ notification }) => notification)}::text[]
          ) as given (channel, notification)`,
        LIMIT,
      ).then(() => undefined),
    read: () =>
      ask(
        (sql) => sql<Committed[]>`select channel, notification,
          (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000)::float8 as at
          from witness.notified order by pg_xact_commit_timestamp(xmin), id`,
      ),
    clear: () => ask((sql) => sql`truncate witness.notified`).then(() => undefined),
  }
}

async function rejectAfter(limit: number): Promise<never> {
  await Bun.sleep(limit)
  throw new Error(`no answer within ${limit} ms`)
}
