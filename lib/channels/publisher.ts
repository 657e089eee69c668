/** Owns publishing: a client's text goes to the broker in one envelope for each of its channels. */

import { type Grant, writable } from '../access/grant.ts'
import { NOTIFICATION_BYTES } from '../refusal.ts'
import type { Broker, Outcome } from './broker.ts'
import { type Envelope, envelope, envelopeFrame, envelopeFrames, envelopeHead, type Frame } from './envelope.ts'

/** What each session keeps for this. */
export interface Publishing {
  readonly grant: Grant
  /** The constant parts of this client's envelopes, one for each channel. Made for its first message, because most clients only read. */
  frames: readonly Frame[] | undefined
  /** Called with the outcome of each of its messages. Made for the first. */
  settled: ((outcome: Outcome) => void) | undefined
}

export interface SendOptions {
  readonly broker: Pick<Broker, 'publish'>
  /** An envelope of a channel stays below so many bytes. */
  readonly limitOf: (channel: string) => number
}

export interface PublisherOptions<P> extends SendOptions {
  readonly forwardClaims: readonly string[] | undefined
  /** The broker refused a message of this client. */
  readonly refused: (client: P) => void
}

export interface Publisher<P> {
  /** Publishes a text on each of a client's channels. @returns why it cannot. */
  everywhere(client: P, text: string): PublishFault | undefined
  /** Publishes a text of a client whose claims are these on one channel. @returns why it cannot. */
  on(address: Address, text: string, key: string | undefined, settled: (outcome: Outcome) => void): PublishFault | undefined
  /** The parts of an envelope around messages of a client to one channel. @param earlier the address of another message of it. */
  address(claims: string, channel: string, earlier: Address | undefined): Address
}

export type PublishFault = 'TOO_LARGE' | 'TOO_LARGE_TO_KEEP' | 'BUFFER_FULL'

/** What stands around the messages that one client sends to one channel. */
export interface Address {
  readonly claims: string
  readonly frame: Frame
}

/** @returns hands envelopes to the broker, all or none, and says why it cannot. */
export function createSend({ broker, limitOf }: SendOptions) {
  return (messages: readonly Envelope[], settled: (outcome: Outcome) => void): PublishFault | undefined => {
    // Short messages are far from any limit.
    const large = messages.find(({ channel, bytes }) => bytes >= NOTIFICATION_BYTES && bytes >= limitOf(channel))
    if (large) return limitOf(large.channel) > NOTIFICATION_BYTES ? 'TOO_LARGE_TO_KEEP' : 'TOO_LARGE'
    return broker.publish(messages, settled) ? undefined : 'BUFFER_FULL'
  }
}

export function createPublisher<P extends Publishing>({
  broker,
  limitOf,
  forwardClaims,
  refused,
}: PublisherOptions<P>): Publisher<P> {
  const send = createSend({ broker, limitOf })

  return {
    everywhere(client, text) {
      const payload = JSON.stringify(text)
      client.settled ??= (outcome) => {
        if (outcome !== 'committed') refused(client)
      }
      client.frames ??= envelopeFrames(client.grant.claims, writable(client.grant), forwardClaims)
      return send(
        client.frames.map((frame) => envelope(frame, payload)),
        client.settled,
      )
    },
    on: ({ frame }, text, key, settled) => send([{ ...envelope(frame, JSON.stringify(text)), key }], settled),
    address(claims, channel, earlier) {
      const same = earlier?.claims === claims ? earlier : undefined
      if (same?.frame.channel === channel) return same
      const head = same?.frame.head ?? envelopeHead(claims, forwardClaims)
      return { claims, frame: envelopeFrame(head, 'WebsocketMessage', channel) }
    },
  }
}
