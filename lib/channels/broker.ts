/** Owns the port to what carries messages between servers. Types only: an engine is one folder in `lib/broker`. */

import type { Refusal } from '../refusal.ts'
import type { Envelope } from './envelope.ts'

export interface Broker {
  /**
   * Accepts messages, all or none. Each sender's messages keep their order.
   *
   * @param settled is called once for each of them, unless the broker is stopped first.
   * @returns false when there is no room for them.
   */
  publish(messages: readonly Envelope[], settled: (outcome: Outcome) => void): boolean
  /**
   * Delivers what the engine carries on this channel under its own name, beside what is published here.
   *
   * @returns undefined where there is nothing to wait for; else a promise that settles when the channel is followed, with a refusal
   *   where it cannot be.
   */
  follow(channel: string): Promise<Refusal | undefined> | undefined
  unfollow(channel: string): void
  /** Whether messages arrive and go out, as far as the last check knows. */
  readonly isReady: boolean
  /** @returns once messages arrive. @throws what the last attempt to reach the engine met. */
  start(receiver: Receiver): Promise<void>
  /** Sends what is held back. Resolves when every accepted message is settled. */
  flush(): Promise<void>
  /** Ends everything. @returns how many accepted messages were not settled. */
  stop(): number
}

/** What became of a message: it is committed, or why it was refused. */
export type Outcome = 'committed' | { readonly code: string; readonly reason: string }

/** Who takes what a broker delivers. */
export interface Receiver {
  /**
   * All that came in one read comes within one tick.
   *
   * @param position where the message stands in the history of channels; undefined where that is not kept.
   */
  message(channel: string, text: string, position?: string): void
  /**
   * Messages between two times, in milliseconds of UNIX time, may have been missed. It comes ahead of the first message behind them, so
   * that no reader gets that one and leaves before it is told.
   */
  missed(from: number, to: number): void
  /** The engine does not deliver a followed channel any more. Its readers are to go. */
  lost(channel: string): void
  /** Messages arrive again, after an outage between two times in milliseconds of UNIX time. */
  restored(from: number, to: number): void
  /** Messages do not arrive any more, and the broker does not heal: the process is to stop. */
  ended(): void
}
