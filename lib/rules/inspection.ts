/** Owns whether a function of the database can be called as it is configured, and what is missing where it cannot. */
import type { Connection } from '../database/connection.ts'
import { Fault } from '../fault.ts'

/** A function cannot be called as it is configured. Trying again does not help. */
export class FunctionFault extends Fault {}

export interface Inspected {
  /** The variable that names it. */
  readonly variable: string
  /** Schema and name, each in double quotes. */
  readonly name: string
  /** How its signature must read: the types of its parameters, as `text, text`. It returns text. */
  readonly parameters: string
  /** Whether the server's role calls it, and not the roles of tokens. */
  readonly isOwnCall: boolean
}

/** That of PGWS_AUTHORIZE_FUNCTION. */
export const authorizing = (name: string, roleClaim: string | undefined): Inspected => ({
  variable: 'PGWS_AUTHORIZE_FUNCTION',
  name,
  parameters: 'text',
  isOwnCall: roleClaim === undefined,
})

/** Every function of that name, the one that fits first, and whom the server is in the database. */
const FIND = `select format('%I.%I', part[1], part[2]) as name, quote_ident(part[1]) as schema, quote_ident(current_user) as role,
    found.*
  from parse_ident($1) as part left join lateral (
    select oidvectortypes(p.proargtypes) as parameters, pg_get_function_result(p.oid) as result,
      p.prokind = 'f' as plain, p.proretset as many, has_schema_privilege(n.oid, 'usage') as usable,
      has_function_privilege(p.oid, 'execute') as executable
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = part[1] and p.proname = part[2]
  ) as found on true
  order by (found.parameters = $2 and found.result = 'text' and found.plain and not found.many) is true desc
  limit 1`

/** @returns its name and signature. @throws FunctionFault that says what to do, or DatabaseError. */
export async function mustBeCallable(session: Pick<Connection, 'query'>, inspected: Inspected): Promise<string> {
  const { variable, name, parameters, isOwnCall } = inspected
  const [found = {}] = await session.query(FIND, [name, parameters])
  const wanted = `${found.name}(${parameters})`
  const fault = (text: string): FunctionFault => new FunctionFault(`${variable} names ${found.name}, ${text}`)
  if (found.parameters === null) throw fault(`a function that is not there: create function ${wanted} returns text`)
  const { plain, many, result } = found
  if (found.parameters !== parameters || result !== 'text' || !plain || many)
    throw fault(
      `which is (${found.parameters}) returns ${result ?? 'nothing'}: it must be a function (${parameters}) returns text`,
    )
  const missing = [
    ...(found.usable ? [] : [`grant usage on schema ${found.schema} to ${found.role}`]),
    ...(found.executable ? [] : [`grant execute on function ${wanted} to ${found.role}`]),
  ]
  if (isOwnCall && missing.length > 0) throw fault(`which the role ${found.role} may not call: ${missing.join('; ')}`)
  return `${wanted} returns text`
}
