/** Owns how faults read: what is wrong with a value that a user wrote, and the message and code of any error. Pure. */

/** What is wrong with a value, as a phrase that follows its name. It never quotes a secret. */
export class Fault extends Error {}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** The code that an error carries, such as the system's `ECONNREFUSED`. */
export const codeOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error ? String(error.code) : undefined
