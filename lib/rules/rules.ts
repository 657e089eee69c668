/** Owns what the configuration lets the database decide: who decides, whether that can be asked, and the signal to ask again. */

import type { Config } from '../config/config.ts'
import type { Database } from '../database/connection.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { createAuthority, type DatabaseAuthority } from './authority.ts'
import { authorizing, FunctionFault, mustBeCallable } from './inspection.ts'

export interface Rules {
  /** Undefined where only tokens decide. */
  readonly authority: DatabaseAuthority | undefined
  /** @returns false where the database cannot be reached: the broker says why. @throws FunctionFault */
  inspect(): Promise<boolean>
  /** The database channels that ring when something was decided anew. @param review asks again about who is connected. */
  signals(review: () => void): ReadonlyMap<string, () => void>
  stop(): void
}

/** The database channel that pgws.authorize_again() rings. */
const AUTHORIZE_AGAIN = 'pgws_authorize'

export function createRules(
  { authorizeFunction, jwtRoleClaim }: Pick<Config, 'authorizeFunction' | 'jwtRoleClaim'>,
  { database, log, metrics }: { readonly database: Database; readonly log: Log; readonly metrics: Metrics },
): Rules {
  const authority =
    authorizeFunction === undefined ? undefined : createAuthority({ database, name: authorizeFunction, log, metrics })
  return {
    authority,
    async inspect() {
      if (authorizeFunction === undefined) return true
      try {
        const session = await database.connect()
        await mustBeCallable(session, authorizing(authorizeFunction, jwtRoleClaim)).finally(() => session.close())
        return true
      } catch (error) {
        if (error instanceof FunctionFault) throw error
        return false
      }
    },
    signals(review) {
      if (!authority) return new Map()
      const decideAgain = (): void => {
        authority.forget()
        review()
      }
      return new Map([[AUTHORIZE_AGAIN, decideAgain]])
    },
    stop: () => authority?.stop(),
  }
}
