/** Owns the frames that clients send: each is counted, and its text is published or is a command. */

import { type Grant, writable } from '../access/grant.ts'
import type { Metrics } from '../metrics.ts'
import type { ClosureCode } from '../refusal.ts'
import type { Client } from './client.ts'
import type { ClientLog, Identity } from './client-log.ts'
import type { Conversations, Conversing } from './conversation.ts'
import type { Clock, Lively } from './liveness.ts'
import type { Publisher, Publishing } from './publisher.ts'
import { createRateLimit, type Rate } from './rate.ts'
import { decode } from './text.ts'

/** What each session keeps for this. */
export interface Sending extends Identity, Lively, Rate, Publishing, Conversing {
  grant: Grant
  client: Client
  channels: readonly string[]
  /** Whether it was said that it sends and may not. */
  isIgnored: boolean
}

export interface FramesOptions<S> {
  readonly maxMessagesPerSecond: number
  readonly clock: Clock
  readonly conversations: Pick<Conversations<S>, 'message'>
  readonly publisher: Pick<Publisher<S>, 'everywhere'>
  readonly close: (session: S, closure: ClosureCode) => void
  readonly metrics: Metrics
  readonly log: Pick<ClientLog, 'ignoring'>
}

export interface Frames<S> {
  /** Text as it was sent, or its bytes. */
  message(session: S, message: string | Uint8Array): void
  /** Any other. */
  control(session: S): void
}

export function createFrames<S extends Sending>(options: FramesOptions<S>): Frames<S> {
  const { clock, conversations, publisher, close, metrics, log } = options
  const isAbove = createRateLimit(options.maxMessagesPerSecond, clock.monotonic)

  /** Counts a frame of a client. @returns whether it may be taken. */
  function takes(session: S): boolean {
    if (session.closure !== undefined) return false
    if (!isAbove(session)) return true
    close(session, 'TOO_FAST')
    return false
  }

  function ignore(session: S): void {
    metrics.ignored.add()
    if (session.isIgnored) return
    session.isIgnored = true
    log.ignoring(session)
  }

  return {
    message(session, message) {
      session.silentRounds = 0
      if (!takes(session)) return
      if (!session.conversation && writable(session.grant).length === 0) return ignore(session)
      if (clock.wall() >= session.grant.expiresAt) return close(session, 'EXPIRED')
      const text = decode(message)
      if (session.conversation) return conversations.message(session, text)
      if (text === undefined || text.includes('\0')) return close(session, 'NOT_TEXT')
      metrics.received.add()
      metrics.receivedBytes.add(message.length)
      const fault = publisher.everywhere(session, text)
      if (fault) close(session, fault)
    },
    control(session) {
      session.silentRounds = 0
      takes(session)
    },
  }
}
