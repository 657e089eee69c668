/** Owns whether this role may keep the connections of a database, and what it lacks. */

import type { Connection } from '../database/connection.ts'
import { faultOfSchema } from '../database/schema/install.ts'

/** Connections cannot be kept as it is configured. Trying again does not help. */
export class ConnectionsFault extends Error {}

const FUNCTIONS = ['version', 'connections_begin', 'connections_write', 'connections_look', 'connections_end'].map(
  (name) => `pgws.${name}`,
)

/** @throws ConnectionsFault that says what to do, or DatabaseError. */
export async function mustKeepConnections(session: Pick<Connection, 'query'>): Promise<void> {
  const fault = (await faultOfRights(session)) ?? (await faultOfSchema(session))
  if (fault !== undefined) throw new ConnectionsFault(`PGWS_CONNECTIONS: ${fault}`)
}

async function faultOfRights(session: Pick<Connection, 'query'>): Promise<string | undefined> {
  const [lacking] = await session.query(
    `select quote_ident(current_user) as role from pg_namespace n
    where n.nspname = 'pgws' and (
      not has_schema_privilege(n.oid, 'usage') or exists (
        select from pg_proc p
        where p.pronamespace = n.oid and 'pgws.' || p.proname = any (string_to_array($1, ' ')) and not has_function_privilege(p.oid, 'execute')
      )
    )`,
    [FUNCTIONS.join(' ')],
  )
  if (lacking === undefined) return undefined
  const { role } = lacking
  return `the role ${role} lacks rights: grant usage on schema pgws to ${role}; grant execute on function ${FUNCTIONS.join(', ')} to ${role}`
}
