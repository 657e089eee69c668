/** Owns the messages that wait to be sent: two lists, what goes by NOTIFY and what goes into the journal, and their one bound. */

import type { Outcome } from '../../channels/broker.ts'
import type { Envelope } from '../../channels/envelope.ts'
import { BUFFER_BYTES, BUFFERED_MESSAGE_BYTES } from '../../refusal.ts'
import { type Carrier, createKeeping, createNotifying } from './carriers.ts'
import { BATCH } from './pipeline.ts'

export interface Message extends Envelope {
  /** By the clock that never goes back, in milliseconds. */
  readonly acceptedAt: number
  readonly settled: (outcome: Outcome) => void
}

/** Messages of one carrier that no batch has taken yet. */
export interface List {
  readonly carrier: Carrier
  readonly isKept: boolean
  readonly length: number
  readonly messages: Message[]
}

export interface Queue {
  readonly lists: readonly List[]
  /** How many messages wait, and what they take of the bound. */
  readonly length: number
  readonly bytes: number
  /** @returns false when there is no room for them. */
  add(added: readonly Envelope[], settled: Message['settled']): boolean
  /** The next batch. */
  take(list: List): readonly Message[]
}

/** What the messages of a batch may come to, in characters, and the last beyond that: those of the journal may be a megabyte each. */
const BATCH_LENGTH = 4 * 1024 * 1024

/**
 * @param channel the database channel that carries every message.
 * @param isKept whether a channel's messages go into the journal instead.
 */
export function createQueue(channel: string, isKept: (channel: string) => boolean): Queue {
  const createList = (carrier: Carrier, isListKept: boolean): List => {
    const messages: Message[] = []
    return {
      carrier,
      isKept: isListKept,
      messages,
      get length() {
        return messages.length
      },
    }
  }
  const notified = createList(createNotifying(channel), false)
  const kept = createList(createKeeping(), true)
  let bytes = 0
  const cost = ({ head, tail }: Envelope): number => head.length + tail.length + BUFFERED_MESSAGE_BYTES
  const total = (some: readonly Envelope[]): number => some.reduce((sum, message) => sum + cost(message), 0)
  return {
    lists: [notified, kept],
    get length() {
      return notified.length + kept.length
    },
    get bytes() {
      return bytes
    },
    add(added, settled) {
      const more = total(added)
      if (bytes + more > BUFFER_BYTES) return false
      bytes += more
      const acceptedAt = performance.now()
      for (const { channel, key, head, tail, bytes } of added)
        (isKept(channel) ? kept : notified).messages.push({ channel, key, head, tail, bytes, acceptedAt, settled })
      return true
    },
    take({ messages }) {
      let count = 0
      for (let length = 0; count < Math.min(messages.length, BATCH) && length < BATCH_LENGTH; count++)
        length += messages[count]?.tail.length ?? 0
      const taken = messages.splice(0, count)
      bytes -= total(taken)
      return taken
    },
  }
}
