/** Owns what a client publishes: its text, in one envelope for each of its channels, on its way to the broker. */

import type { Grant } from '../access/grant.ts'
import { NOTIFICATION_BYTES } from '../refusal.ts'
import type { Broker, Outcome } from './broker.ts'
import { envelope, envelopeFrames, type Frame } from './envelope.ts'

/** What is kept of it with a client. */
export interface Publishing {
  readonly grant: Pick<Grant, 'claims' | 'channels'>
  /** The parts of this client's envelopes around a message, one a channel; made with its first message, for most only read. */
  frames: readonly Frame[] | undefined
  /** Learns what became of each of its messages; made with the first. */
  settled: ((outcome: Outcome) => void) | undefined
}

export interface PublisherOptions<P> {
  readonly broker: Pick<Broker, 'publish'>
  /** An envelope of a channel stays below so many bytes. */
  readonly limitOf: (channel: string) => number
  readonly forwardClaims: readonly string[] | undefined
  /** The broker refused a message of this client. */
  readonly refused: (client: P) => void
}

/** @returns publishes a text of a client, and says why it cannot. */
export function createPublisher<P extends Publishing>({ broker, limitOf, forwardClaims, refused }: PublisherOptions<P>) {
  return (client: P, text: string): 'TOO_LARGE' | 'TOO_LARGE_TO_KEEP' | 'BUFFER_FULL' | undefined => {
    const payload = JSON.stringify(text)
    client.settled ??= (outcome) => {
      if (outcome !== 'committed') refused(client)
    }
    client.frames ??= envelopeFrames(client.grant.claims, client.grant.channels, forwardClaims)
    const messages = client.frames.map((frame) => envelope(frame, payload))
    // Short messages are far from any limit.
    const large = messages.find(({ channel, bytes }) => bytes >= NOTIFICATION_BYTES && bytes >= limitOf(channel))
    if (large) return limitOf(large.channel) > NOTIFICATION_BYTES ? 'TOO_LARGE_TO_KEEP' : 'TOO_LARGE'
    return broker.publish(messages, client.settled) ? undefined : 'BUFFER_FULL'
  }
}
