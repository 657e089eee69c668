/** Owns the port to what handles the messages of clients in place of the broker: a function of the database. Types only. */

import type { Grant } from '../access/grant.ts'
import type { Broker, Outcome } from './broker.ts'
import type { Frame } from './envelope.ts'

export interface Handler extends Pick<Broker, 'flush' | 'stop'> {
  /**
   * Accepts a text on some channels, on all or on none. Each sender's messages keep their order.
   *
   * @param key of two messages of a channel with the same key, one is published, where history is kept.
   * @param settled is called once for each channel, in the order of the sender's messages, unless the handler is stopped first.
   * @returns false when there is no room for them.
   */
  handle(
    sender: Sender,
    frames: readonly Frame[],
    text: string,
    key: string | undefined,
    settled: (outcome: Outcome) => void,
  ): boolean
}

/** Who sends. The object is who it is, for as long as its messages are to keep their order. */
export interface Sender {
  readonly grant: Pick<Grant, 'claims' | 'role'>
}
