/** Owns the schema `pgws` as the program sees it: its SQL, its installation, and whether what a database holds fits. */
import { type Connection, type Database, DatabaseError } from '../connection.ts'
import connections from './connections.sql' with { type: 'text' }
import journal from './journal.sql' with { type: 'text' }

/** What `--print-sql` prints and `--install` runs: one transaction, which may be run again at any time. */
export const schema = `${journal}\n${connections}\ncommit;\n`

/** The version that `schema` installs, as `pgws.version()` tells it. */
export const schemaVersion = 2

/** From which version to which; undefined where there was no schema. */
export interface Installation {
  readonly from: number | undefined
  readonly to: number
}

/** SQLSTATE insufficient_privilege. */
const NOT_ALLOWED = '42501'

/** Creates or upgrades the schema. @throws DatabaseError, or an Error that says what the role lacks. */
export async function install(database: Database): Promise<Installation> {
  const session = await database.connect()
  try {
    const from = await installedVersion(session)
    await session.query(schema)
    return { from, to: schemaVersion }
  } catch (error) {
    if (!(error instanceof DatabaseError && error.code === NOT_ALLOWED)) throw error
    throw new Error(
      `${error.message}: this role may not install the journal. Run --install as the owner of the database or of the schema pgws, or grant the role "create" on the database; --print-sql prints the SQL to run by hand.`,
    )
  } finally {
    session.close()
  }
}

export function describeInstallation({ from, to }: Installation): string {
  if (from === undefined) return `installed the journal's schema pgws, version ${to}`
  return from === to
    ? `the journal's schema pgws has version ${to} already`
    : `upgraded the journal's schema pgws from version ${from} to ${to}`
}

/** Why the journal cannot be used in this database, and what to do; undefined where it can. @throws DatabaseError */
export async function faultOfSchema(session: Pick<Connection, 'query'>): Promise<string | undefined> {
  try {
    const version = await installedVersion(session)
    if (version === undefined) return 'the database has no schema pgws: install it with postgres-websockets --install'
    if (version < schemaVersion) {
      return `the schema pgws has version ${version}, and this program needs ${schemaVersion}: upgrade it with postgres-websockets --install`
    }
    return undefined
  } catch (error) {
    if (!(error instanceof DatabaseError && error.code === NOT_ALLOWED)) throw error
    return `${error.message}: this role may not use the journal. Grant it usage on schema pgws, and execute on all functions in it.`
  }
}

/** Undefined where there is no schema. @throws DatabaseError */
async function installedVersion(session: Pick<Connection, 'query'>): Promise<number | undefined> {
  const [found] = await session.query(
    `select exists (
      select from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'pgws' and p.proname = 'version'
    ) as here`,
  )
  if (found?.here !== true) return undefined
  const [row] = await session.query('select pgws.version() as version')
  return Number(row?.version)
}
