/** Owns what a server asks of the functions of connections.sql, over a session of its own. */

import { answeredWithin } from '../database/asking.ts'
import type { Database, Row } from '../database/connection.ts'
import { createLastingSession } from '../database/lasting-session.ts'
import type { Part } from './changes.ts'
import type { Order } from './orders.ts'
import { mustKeepConnections } from './rights.ts'

export interface Look {
  /** Whether the database has a row of this server. */
  readonly isKnown: boolean
  /** What was seen. */
  readonly snapshot: string
  readonly orders: readonly Order[]
}

export interface Statements {
  /** How many were asked. */
  readonly count: number
  /** @throws ConnectionsFault */
  inspect(): Promise<void>
  /** @param shownClaims those that Joined and Left tell; undefined is all. */
  begin(server: string, hasPresence: boolean, shownClaims: readonly string[] | undefined): Promise<void>
  /** @param since the snapshot of the look before; empty for the first. @param reaps whether to remove what is over. */
  look(server: string, since: string, reaps: boolean): Promise<Look>
  /** @returns whether the database has a row of this server: if not, nothing was written. */
  write(server: string, part: Part<unknown>): Promise<boolean>
  end(server: string): Promise<void>
  stop(): void
}

/** Milliseconds. */
const ANSWER_LIMIT = 10_000

export function createStatements(database: Database): Statements {
  const session = createLastingSession(database)
  let count = 0

  async function ask(statement: string, ...parameters: readonly string[]): Promise<Row> {
    const connection = await session.connected()
    count++
    const ended = { close: () => session.replace() }
    const [row = {}] = await answeredWithin(ANSWER_LIMIT, ended, () => connection.query(statement, parameters))
    return row
  }

  return {
    get count() {
      return count
    },
    inspect: async () => mustKeepConnections(await session.connected()),
    async begin(server, hasPresence, shownClaims) {
      const claims = shownClaims === undefined ? '' : JSON.stringify(shownClaims)
      await ask('select pgws.connections_begin($1, $2::text::boolean, $3)', server, String(hasPresence), claims)
    },
    async look(server, since, reaps) {
      const row = await ask('select * from pgws.connections_look($1, $2, $3::text::boolean)', server, since, String(reaps))
      return {
        isKnown: row.is_known === true,
        snapshot: String(row.snapshot),
        // The function writes orders in this form.
        orders: typeof row.orders === 'string' ? (JSON.parse(row.orders) as Order[]) : [],
      }
    },
    async write(server, { rows, gone }) {
      const texts = [`[${rows.join(',')}]`, JSON.stringify(gone)]
      return (await ask('select pgws.connections_write($1, $2, $3) as known', server, ...texts)).known === true
    },
    async end(server) {
      await ask('select pgws.connections_end($1)', server)
    },
    stop: session.stop,
  }
}
