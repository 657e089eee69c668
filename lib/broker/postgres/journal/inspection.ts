/** Owns whether the journal of a database can be used, by this role and with this retention, and what it holds. */
import { asDatabaseError, type Connection } from '../../../database/connection.ts'
import { faultOfSchema } from '../../../database/schema/install.ts'

type Session = Pick<Connection, 'query'>

/** The journal cannot be used as it is configured. Trying again does not help. */
export class JournalFault extends Error {}

export interface Holdings {
  readonly messages: number
  readonly bytes: number
  /** For how many seconds the oldest message has been in it. */
  readonly age: number
  /** For how many seconds the oldest message has been committed that lies behind the number that was given. */
  readonly lag: number
}

/** The schema, the role's rights and the retention. @throws JournalFault that says what to do, or DatabaseError. */
export async function mustBeUsable(session: Session, retention: string): Promise<void> {
  const fault = (await faultOfSchema(session)) ?? (await faultOfRights(session)) ?? (await faultOfRetention(session, retention))
  if (fault !== undefined) throw new JournalFault(fault)
}

/** @param after the number of the newest message that was read. */
export async function readHoldings(session: Session, after: number): Promise<Holdings> {
  const [row = {}] = await session.query(
    'select messages::float8 as messages, bytes::float8 as bytes, age, lag from pgws.holdings($1::text::bigint)',
    [String(after)],
  )
  const { messages, bytes, age, lag } = row
  return { messages: Number(messages), bytes: Number(bytes), age: Number(age), lag: Number(lag) }
}

/** What connections.sql makes: the journal needs none of it. */
const OTHERS = [
  'presence',
  'order_end',
  'disconnect',
  'revoke',
  'authorize_again',
  'claims_of',
  'address_of',
  'tell_presence',
  'remove_server',
  'connections_begin',
  'connections_write',
  'connections_look',
  'connections_end',
]

async function faultOfRights(session: Session): Promise<string | undefined> {
  const [lacking] = await session.query(
    `select p.oid::regprocedure::text as name, quote_ident(current_user) as role from pg_proc p
    where p.pronamespace = to_regnamespace('pgws') and not has_function_privilege(p.oid, 'execute') and p.proname <> all ($1)
    order by 1 limit 1`,
    [`{${OTHERS.join(',')}}`],
  )
  if (lacking === undefined) return undefined
  return `the role ${lacking.role} may not execute ${lacking.name}: grant execute on all functions in schema pgws to ${lacking.role}`
}

/** SQLSTATE class 22: no interval, or one beyond what there is. */
const DATA_EXCEPTION = /^22/

async function faultOfRetention(session: Session, retention: string): Promise<string | undefined> {
  const given = `PGWS_JOURNAL_RETENTION is ${JSON.stringify(retention)}`
  try {
    const [row] = await session.query(`select $1::text::interval >= interval '10 seconds' as fits`, [retention])
    return row?.fits === true ? undefined : `${given}, less than 10 seconds`
  } catch (error) {
    if (!DATA_EXCEPTION.test(asDatabaseError(error).code)) throw error
    return `${given}, no interval that PostgreSQL reads. For example: 7 days`
  }
}
