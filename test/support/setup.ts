/** Owns what every test file shares: the compiled binary, one PostgreSQL, and the end of both. */

import { afterAll, beforeAll } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { resolve } from 'node:path'
import postgres from 'postgres'
import { type Postgres, startPostgres } from './postgres.ts'
import { killAll } from './program.ts'

const shared: { server?: Postgres; sql?: postgres.Sql } = {}

/** The shared server. Tests that stop or break a server start their own. */
export function database(): Postgres {
  if (!shared.server) throw new Error('PostgreSQL is not started yet')
  return shared.server
}

/** A session of the tests on the shared server. */
export function sql(): postgres.Sql {
  if (!shared.sql) throw new Error('PostgreSQL is not started yet')
  return shared.sql
}

let names = 0

/** A name that no other test uses. */
export const unique = (prefix: string): string => `${prefix}-${process.pid}-${++names}`

beforeAll(async () => {
  if (shared.server) return
  const built = spawnSync('npm', ['run', '--silent', 'build'], { cwd: resolve(import.meta.dir, '../..'), encoding: 'utf8' })
  if (built.status !== 0) throw new Error(`the build failed: ${built.stdout}${built.stderr}`)
  shared.server = await startPostgres({ settings: { max_connections: '200' } })
  shared.sql = postgres(shared.server.uri, { max: 2, onnotice: () => undefined })
})

afterAll(async () => {
  killAll()
  await shared.sql?.end({ timeout: 1 })
  await shared.server?.stop()
})
