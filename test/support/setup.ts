/** Owns the PostgreSQL that test files share: started when the first file that needs it is loaded. */
import postgres from 'postgres'
import { atEnd } from './ending.ts'
import { type Postgres, startPostgres } from './postgres.ts'

const server = await startPostgres({ settings: { max_connections: '200' } })
atEnd(() => server.stop())

const session = postgres(server.uri, { max: 2, onnotice: () => undefined })
atEnd(() => session.end({ timeout: 1 }))

/** The shared server. Tests that stop or break a server start their own. */
export const database = (): Postgres => server

/** A session of the tests on the shared server. */
export const sql = (): postgres.Sql => session

let names = 0

/** A name that no other test uses. */
export const unique = (prefix: string): string => `${prefix}-${process.pid}-${++names}`
