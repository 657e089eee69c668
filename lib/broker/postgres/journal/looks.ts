/**
 * Owns looks: each gives positions to the messages that were committed since the one before.
 *
 * Whoever looks without being the sequencer does no harm: two batches that follow the same one are duplicates in the database.
 */
import { asDatabaseError, type Connection, type Row } from '../../../database/connection.ts'
import type { Log } from '../../../log.ts'
import type { Bells } from './bells.ts'
import type { SequencerStates } from './sequencer-states.ts'

/** Asks the database over the sequencer's session, for the first row of the answer. @throws DatabaseError */
export type Ask = (statement: string, parameters?: readonly string[]) => Promise<Row>

export interface Look {
  readonly head: number
  readonly fresh: number
  /** The oldest transaction id that was under way. */
  readonly oldest: bigint
}

/** What it takes to look over one session. */
export interface Looking {
  readonly states: SequencerStates
  readonly bells: Bells
  readonly ask: Ask
  readonly look: () => Promise<Look | undefined>
  readonly log: Log
}

export interface Looks {
  /** Looks so far, and those that found something. */
  readonly count: number
  readonly batches: number
  /** Undefined where another look was ahead. */
  look(server: Connection['server'], ask: Ask): Promise<Look | undefined>
}

export interface LooksOptions {
  readonly states: SequencerStates
  readonly bells: Bells
  readonly log: Log
  /** Told at once up to where a look of this server gave positions. */
  readonly sequenced: (head: number) => void
}

/** SQLSTATE unique_violation: another server was ahead. */
const OVERTAKEN = '23505'

const LOOK = 'select head::float8 as head, fresh, oldest::text as oldest, backend::text as backend from pgws.look()'

export function createLooks({ states, bells, log, sequenced }: LooksOptions): Looks {
  let count = 0
  let batches = 0

  async function lookOnce(server: Connection['server'], ask: Ask): Promise<Look> {
    const row = await ask(LOOK)
    if (String(row.backend) !== server.backend.pid && !states.is('pooled')) {
      states.enter('pooled')
      log.warning('the journal is read through a pooler: messages may come a second late', { server: server.place })
    }
    const found = { head: Number(row.head), fresh: Number(row.fresh), oldest: BigInt(String(row.oldest)) }
    if (found.fresh > 0) {
      batches++
      sequenced(found.head)
    }
    return found
  }

  return {
    get count() {
      return count
    },
    get batches() {
      return batches
    },
    look(server, ask) {
      bells.looking()
      count++
      return unlessOvertaken(lookOnce(server, ask))
    },
  }
}

/** Undefined where another server did the same a moment before. */
export async function unlessOvertaken<T>(done: Promise<T>): Promise<T | undefined> {
  try {
    return await done
  } catch (error) {
    if (asDatabaseError(error).code !== OVERTAKEN) throw error
    return undefined
  }
}
