/** Owns the function of `PGWS_MESSAGE_FUNCTION` as it is configured: whether it can be called, and what calls it. */
import type { Config } from '../config/config.ts'
import type { Database } from '../database/connection.ts'
import { createHandler, type HandlingOptions, type PausableHandler } from './handler.ts'
import { mustBeCallable } from './inspection.ts'

/** @returns what was found. @throws FunctionFault that says what to do, or DatabaseError. */
export async function inspectMessageFunction(
  { messageFunction: name, jwtRoleClaim }: Pick<Config, 'messageFunction' | 'jwtRoleClaim'>,
  database: Pick<Database, 'connect'>,
): Promise<string> {
  if (name === undefined) return 'unset'
  const session = await database.connect()
  try {
    return await mustBeCallable(session, {
      variable: 'PGWS_MESSAGE_FUNCTION',
      name,
      parameters: 'text, text',
      isOwnCall: jwtRoleClaim === undefined,
    })
  } finally {
    session.close()
  }
}

/** What calls it; undefined where none is configured. */
export const createMessageHandler = (
  { messageFunction: name, listenChannel: channel, poolSize: sessions }: Config,
  parts: Omit<HandlingOptions, 'name' | 'channel' | 'sessions'>,
): PausableHandler | undefined => (name === undefined ? undefined : createHandler({ ...parts, name, channel, sessions }))
