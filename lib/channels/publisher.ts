/** Owns publishing: a client's text goes to the broker in one envelope for each of its channels. */

import { type Grant, writable } from '../access/grant.ts'
import { NOTIFICATION_BYTES } from '../refusal.ts'
import type { Broker, Outcome } from './broker.ts'
import { envelope, envelopeFrame, envelopeFrames, envelopeHead, type Frame } from './envelope.ts'
import type { Handler, Sender } from './handler.ts'

/** What each session keeps for this. */
export interface Publishing extends Sender {
  readonly grant: Grant
  /** The constant parts of this client's envelopes, one for each channel. Made for its first message, because most clients only read. */
  frames: readonly Frame[] | undefined
  /** Called with the outcome of each of its messages. Made for the first. */
  settled: ((outcome: Outcome) => void) | undefined
}

export interface SendOptions {
  readonly broker: Pick<Broker, 'publish'>
  /** Takes the messages in place of the broker, where there is one. */
  readonly handler?: Handler | undefined
  /** An envelope of a channel stays below so many bytes. */
  readonly limitOf: (channel: string) => number
}

export interface PublisherOptions<P> extends SendOptions {
  readonly forwardClaims: readonly string[] | undefined
  /** A message of this client was refused. */
  readonly refused: (client: P, outcome: Exclude<Outcome, 'committed'>) => void
}

export interface Publisher<P> {
  /** Publishes a text on each of a client's channels. @returns why it cannot. */
  everywhere(client: P, text: string): PublishFault | undefined
  /** Publishes a text of a client on one channel. @returns why it cannot. */
  on(
    client: Sender,
    address: Address,
    text: string,
    key: string | undefined,
    settled: (outcome: Outcome) => void,
  ): PublishFault | undefined
  /** The parts of an envelope around messages of a client to one channel. @param earlier the address of another message of it. */
  address(claims: string, channel: string, earlier: Address | undefined): Address
}

export type PublishFault = 'TOO_LARGE' | 'TOO_LARGE_TO_KEEP' | 'BUFFER_FULL'

/** What stands around the messages that one client sends to one channel. */
export interface Address {
  readonly claims: string
  readonly frame: Frame
}

/** Hands a text on some channels on, on all or on none. @returns why it cannot. */
type Send = (
  sender: Sender,
  frames: readonly Frame[],
  text: string,
  key: string | undefined,
  settled: (outcome: Outcome) => void,
) => PublishFault | undefined

const FULL = 'BUFFER_FULL'

/** The most bytes of UTF-8 that a unit of UTF-16 takes. */
const UNIT_BYTES = 3

/** @returns hands texts to the handler, where there is one, or as envelopes to the broker. */
export function createSend({ broker, handler, limitOf }: SendOptions): Send {
  if (handler)
    return (sender, frames, text, key, settled) => {
      const isBelow = ({ channel }: Frame, bytes: number): boolean => bytes < limitOf(channel)
      const most = UNIT_BYTES * text.length
      if (!frames.every((frame) => isBelow(frame, most) || isBelow(frame, Buffer.byteLength(text)))) return 'TOO_LARGE_TO_KEEP'
      return handler.handle(sender, frames, text, key, settled) ? undefined : FULL
    }
  return (_, frames, text, key, settled) => {
    const payload = JSON.stringify(text)
    const messages = frames.map((frame) => (key === undefined ? envelope(frame, payload) : { ...envelope(frame, payload), key }))
    // Short messages are far from any limit.
    const large = messages.find(({ channel, bytes }) => bytes >= NOTIFICATION_BYTES && bytes >= limitOf(channel))
    if (large) return limitOf(large.channel) > NOTIFICATION_BYTES ? 'TOO_LARGE_TO_KEEP' : 'TOO_LARGE'
    return broker.publish(messages, settled) ? undefined : FULL
  }
}

export function createPublisher<P extends Publishing>({ forwardClaims, refused, ...options }: PublisherOptions<P>): Publisher<P> {
  const send = createSend(options)

  return {
    everywhere(client, text) {
      client.settled ??= (outcome) => {
        if (outcome !== 'committed') refused(client, outcome)
      }
      client.frames ??= envelopeFrames(client.grant.claims, writable(client.grant), forwardClaims)
      return send(client, client.frames, text, undefined, client.settled)
    },
    on: (client, { frame }, text, key, settled) => send(client, [frame], text, key, settled),
    address(claims, channel, earlier) {
      const same = earlier?.claims === claims ? earlier : undefined
      if (same?.frame.channel === channel) return same
      const head = same?.frame.head ?? envelopeHead(claims, forwardClaims)
      return { claims, frame: envelopeFrame(head, 'WebsocketMessage', channel) }
    },
  }
}
