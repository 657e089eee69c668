/** Owns what is said when an HTTP server cannot be reached. Runtimes add a question of their own for whoever reads it. */

import { codeOf, messageOf } from './fault.ts'

/** What the system's codes mean for a request. */
const meanings: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was reset',
  ENOTFOUND: 'the name has no address',
  EPROTO: 'the TLS handshake failed',
}

/** Why a fetch failed, without the runtime's advice. */
export function reasonOf(error: unknown): string {
  // As Node.js and Deno tell it: "fetch failed", for a cause.
  if (error instanceof Error && error.cause instanceof Error) return reasonOf(error.cause)
  return meanings[codeOf(error) ?? ''] ?? messageOf(error)
}
