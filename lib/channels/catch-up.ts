/**
 * Owns readers that resume. Each is written to alone, history page by page as it drains them, until it has caught up. Then it joins those
 * who read live in that same tick, so that there is neither a gap nor a double between the two.
 */

import type { History, Page } from './broker.ts'
import type { Client, Form } from './client.ts'

export interface Resuming {
  readonly client: Client
  readonly form: Form
  /** Whether it is still to be written to. */
  isOpen(): boolean
  /** It has caught up, and reads live from this tick on. */
  caughtUp(): void
  /** History was dropped that it had not read yet. It is to be told, and reads live. */
  lost(): void
}

export interface CatchUpOptions {
  readonly history: History
  /** Bytes that may wait for a reader before the next message of history is written. */
  readonly room: number
  /** To be told the bytes of each text that was written. */
  readonly handedOn: (bytes: number, readers: number) => void
}

/** Milliseconds between two looks at whether a reader has drained what it was written. */
const LOOK_EVERY = 20

/** Milliseconds until history that could not be read is asked for again. */
const RETRY_EVERY = 500

/** @returns begins to write what lies behind a number, of some channels, of which the caller may take out those that are left. */
export function createCatchUp({ history, room, handedOn }: CatchUpOptions) {
  async function drained({ client, isOpen }: Resuming): Promise<void> {
    while (isOpen() && client.waiting() > room) await pause(LOOK_EVERY)
  }

  function write({ client, form }: Resuming, { number, channel, text }: Page['entries'][number]): void {
    const rendered = form.render(channel, text, history.position(number))
    client.write(rendered)
    handedOn(Buffer.byteLength(rendered), 1)
  }

  /** Undefined where history could not be read. It comes back with the engine, which says why in the log. */
  async function retried(asked: Promise<Page | 'lost'>): Promise<Page | 'lost' | undefined> {
    try {
      return await asked
    } catch {
      await pause(RETRY_EVERY)
      return undefined
    }
  }

  async function run(reader: Resuming, channels: readonly string[], from: number): Promise<void> {
    let number = from
    while (reader.isOpen()) {
      const count = channels.length
      const asked = history.after(channels, number)
      // A page that is at hand is used in this very tick.
      const page = asked instanceof Promise ? await retried(asked) : asked
      if (page === undefined || !reader.isOpen()) continue
      if (page === 'lost') return reader.lost()
      const { entries, upTo, isEnd } = page
      for (const entry of entries) {
        if (reader.client.waiting() > room) break
        if (channels.length === count || channels.includes(entry.channel)) write(reader, entry)
        number = entry.number
      }
      const isWritten = entries.length === 0 || number === entries.at(-1)?.number
      if (isWritten) number = upTo
      if (isWritten && isEnd) return reader.caughtUp()
      await drained(reader)
    }
  }

  return (reader: Resuming, channels: readonly string[], from: number): void => void run(reader, channels, from)
}

const pause = (time: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, time))
