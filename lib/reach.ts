/** Owns the reason that is given when an HTTP server cannot be reached, without the advice that runtimes add. */

import { codeOf, messageOf } from './fault.ts'

/** What the system's codes mean for a request. */
const meanings: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was reset',
  ENOTFOUND: 'the name has no address',
  EPROTO: 'the TLS handshake failed',
}

export function reasonOf(error: unknown): string {
  // Node.js and Deno say "fetch failed", and give the reason as the cause.
  if (error instanceof Error && error.cause instanceof Error) return reasonOf(error.cause)
  return meanings[codeOf(error) ?? ''] ?? messageOf(error)
}
