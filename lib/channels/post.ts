/** Owns a message of somebody who is not connected: all they learn is what became of it. */

import { type Grant, writable } from '../access/grant.ts'
import type { Metrics } from '../metrics.ts'
import { NOTIFICATION_BYTES } from '../refusal.ts'
import type { Outcome, Rejection } from './broker.ts'
import { envelopeFrames } from './envelope.ts'
import { createSend, type PublishFault, type SendOptions } from './publisher.ts'
import { decode } from './text.ts'

/** Why a message was not published. */
export type PostFault = PublishFault | 'NOT_TEXT' | 'REFUSED_BY_DATABASE' | Rejection

export interface PostOptions extends SendOptions {
  readonly forwardClaims: readonly string[] | undefined
  readonly metrics: Metrics
}

/**
 * Publishes a message on every channel of a grant.
 *
 * @param message undefined is one too long to be read.
 * @param key of two messages of a channel with the same key, one is published, where history is kept.
 * @param settled is called once, when it is committed on all of them, or with the fault.
 */
export type Post = (
  grant: Grant,
  message: Uint8Array | undefined,
  key: string | undefined,
  settled: (fault: PostFault | undefined) => void,
) => void

export function createPost({ forwardClaims, metrics, ...options }: PostOptions): Post {
  const send = createSend(options)
  const { limitOf } = options
  return (grant, message, key, settled) => {
    const channels = writable(grant)
    if (message === undefined)
      return settled(channels.every((channel) => limitOf(channel) > NOTIFICATION_BYTES) ? 'TOO_LARGE_TO_KEEP' : 'TOO_LARGE')
    const text = decode(message)
    if (text === undefined || text.includes('\0')) return settled('NOT_TEXT')
    metrics.received.add()
    metrics.receivedBytes.add(message.length)
    const frames = envelopeFrames(grant.claims, channels, forwardClaims)
    let left = frames.length
    let refused: PostFault | undefined
    const fault = send({ grant }, frames, text, key, (outcome: Outcome) => {
      if (outcome !== 'committed')
        refused = !('rejected' in outcome) ? 'REFUSED_BY_DATABASE' : outcome.code === 'TOO_LARGE' ? 'TOO_LARGE' : outcome
      if (--left === 0) settled(refused)
    })
    if (fault) settled(fault)
  }
}
