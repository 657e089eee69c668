/** Owns how clients read as rows of the database. Pure. */

import { members } from '../channels/json.ts'
import type { Registered } from '../channels/registry.ts'

/** What jsonb may refuse: a NUL, a lone surrogate, and a number beyond its range. */
const DOUBTFUL = /\\u(?:0000|d[89a-f])|[eE][+-]?\d{4}|\d{1000}/i

/** What these would be taken for: an escaped backslash, and a character beyond 16 bits. */
const HARMLESS = /\\\\|\\ud[89ab][\da-f]{2}\\ud[c-f][\da-f]{2}/gi

const isDoubtful = (text: string): boolean => DOUBTFUL.test(text) && DOUBTFUL.test(text.replaceAll(HARMLESS, ' '))

/** Claims, less those that jsonb may refuse. */
function storable(claims: string): string {
  if (!isDoubtful(claims)) return claims
  const kept = [...members(claims)].filter(([name, value]) => !isDoubtful(JSON.stringify(name) + value))
  return `{${kept.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(',')}}`
}

/** @param now milliseconds of the monotonic clock. */
export const rowOf = ({ id, grant, channels, protocol, address, openedAt }: Registered, now: number): string =>
  JSON.stringify({
    id,
    claims: storable(grant.claims),
    // PostgreSQL has no text with a NUL.
    channels: channels.map((channel) => channel.replaceAll('\0', '\ufffd')),
    mode: grant.mode,
    door: protocol.name === 'plain' || protocol.name === 'pgws' ? 'websocket' : protocol.name,
    address,
    seconds: (now - openedAt) / 1000,
  })
