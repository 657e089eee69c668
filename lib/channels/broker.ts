/** Owns the port to the broker, which carries messages between servers. Types only: each engine is one folder in `lib/broker`. */

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
   * Also delivers what others send on the engine's own channel of this name.
   *
   * @returns undefined where there is nothing to wait for; else a promise that settles when the channel is followed, with a refusal
   *   where it cannot be.
   */
  follow(channel: string): Promise<Refusal | undefined> | undefined
  unfollow(channel: string): void
  /** Undefined where none is kept. */
  readonly history: History | undefined
  /** Whether messages arrive and go out, as far as the last check knows. */
  readonly isReady: boolean
  /** @returns once messages arrive. @throws the error of the last attempt to reach the engine. */
  start(receiver: Receiver): Promise<void>
  /** Sends what is held back. Resolves when every accepted message is settled. */
  flush(): Promise<void>
  /** Ends everything. @returns how many accepted messages were not settled. */
  stop(): number
}

/** What was published on channels that keep it, in one order for all readers. A number rises by that order, with gaps. */
export interface History {
  /** The number of the newest message that was handed to the receiver. */
  readonly head: number
  /** Every message from this number on is there. */
  readonly kept: number
  /**
   * The next messages of some channels behind a number: at once where they are at hand.
   *
   * @returns `lost` where they are not all there any more. Rejected where the engine cannot be asked.
   */
  after(channels: readonly string[], number: number): Page | Promise<Page | 'lost'>
  /** The number behind which the last so many messages of some channels lie, counted over all of them. */
  last(channels: readonly string[], count: number): number | Promise<number>
  /** The number of a position. `lost` is one of another history than this. */
  find(position: string): number | 'malformed' | 'lost' | Promise<number | 'malformed' | 'lost'>
  /** A number as readers know it: the same on every server. */
  position(number: number): string
}

/** What a reader asks of history: what lies behind a position, or so many of the last messages; undefined is nothing. */
export type Asked = { readonly since: string } | { readonly last: number } | undefined

/** A piece of history. */
export interface Page {
  readonly entries: readonly { readonly number: number; readonly channel: string; readonly text: string }[]
  /** All messages of the channels up to this number are in this page or ahead of it. */
  readonly upTo: number
  /** Nothing is behind it as long as this tick lasts: who reads live from this tick on misses nothing, and gets nothing twice. */
  readonly isEnd: boolean
}

/** A message is committed, or was refused for a reason: by the engine, or by what handles messages in place of it. */
export type Outcome = 'committed' | { readonly code: string; readonly reason: string } | Rejection

/** What handles messages refused one: code and reason are for its sender. */
export interface Rejection {
  /** The message's channel. */
  readonly rejected: string
  /** The SQLSTATE of an exception, or `TOO_LARGE`. */
  readonly code: string
  readonly reason: string
}

/** Who takes what a broker delivers. */
export interface Receiver {
  /**
   * All that came in one read comes within one tick.
   *
   * @param position where the message stands in the history of channels; undefined where that is not kept.
   */
  message(channel: string, text: string, position?: string): void
  /**
   * Messages between two times, in milliseconds of UNIX time, may have been missed; without the first, of any time before. It comes ahead of the first message behind them, so
   * that no reader gets that one and leaves before it is told.
   */
  missed(from: number | undefined, to: number): void
  /** Messages that were kept are gone: readers of any channel may have missed some. */
  historyLost(): void
  /** The engine no longer delivers a followed channel. Its readers must be closed. */
  lost(channel: string): void
  /** Messages arrive again, after an outage between two times in milliseconds of UNIX time. */
  restored(from: number, to: number): void
  /** Messages no longer arrive and the broker does not recover: the process must stop. */
  ended(): void
}
