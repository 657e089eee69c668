/** Owns what is kept of a connected client. */

import { type Grant, readable } from '../access/grant.ts'
import type { Client, Protocol } from './client.ts'
import { createId } from './client-log.ts'
import type { Ending } from './ending.ts'
import type { Sending } from './frames.ts'
import type { Beginning, Reading } from './reading.ts'
import type { Reviewed } from './reviews.ts'

export interface Session extends Sending, Ending, Reading, Reviewed {
  grant: Grant
  channels: readonly string[]
  readonly protocol: Protocol
  /** Nobody until the session opens. */
  client: Client
  readonly beginning: Beginning
  /** Milliseconds of the monotonic clock. */
  readonly admittedAt: number
  openedAt: number
}

const nobody: Client = {
  waiting: () => 0,
  write: () => undefined,
  writeAll: () => undefined,
  join: () => undefined,
  leave: () => undefined,
  ping: () => false,
  end: () => undefined,
  drop: () => undefined,
}

export const createSession = (grant: Grant, protocol: Protocol, address: string, beginning: Beginning): Session => ({
  id: createId(),
  address,
  grant,
  // Who sends commands names a channel in each: only what it reads is what it is on.
  channels: protocol.commands ? readable(grant) : grant.channels,
  conversation: undefined,
  protocol,
  client: nobody,
  beginning,
  resuming: undefined,
  frames: undefined,
  admittedAt: performance.now(),
  openedAt: 0,
  reviewAt: Number.POSITIVE_INFINITY,
  silentRounds: 0,
  isPinged: false,
  warnAt: Number.POSITIVE_INFINITY,
  expiry: undefined,
  closure: undefined,
  reason: undefined,
  settled: undefined,
  isIgnored: false,
  second: 0,
  inSecond: 0,
})
