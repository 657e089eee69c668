/** Owns finding readers that are too slow, and how often to look for them. */
import type { Client } from './client.ts'

interface Reader {
  readonly client: Pick<Client, 'waiting'>
}

export interface SlowReadersOptions<R> {
  readonly readers: ReadonlySet<R>
  /** Bytes that may wait for one reader beside one text, the longest so far: a text that waits alone says nothing of who reads it. */
  readonly limit: number
  /** Called for a reader with more than that. */
  readonly found: (reader: R) => void
}

/** The most that a server's frame adds to a text below 64 KiB (RFC 6455 section 5.2). */
const FRAME_BYTES = 4

/** Checking all readers is worth its cost once this many bytes were handed on for each of them. */
const LOOK_BYTES = 32

/** @returns a function to call for each text that was handed on, with its bytes and the number of readers. */
export function createSlowReaders<R extends Reader>({
  readers,
  limit,
  found,
}: SlowReadersOptions<R>): (bytes: number, count: number) => void {
  /** Bytes of the texts handed on since the last check: each counted once, and each times its readers. */
  let unlooked = 0
  let spread = 0
  /** Bytes of the longest text so far. How messages grow in a form bounds it, and so what may wait. */
  let longest = 0

  /**
   * What waits for one reader grew by no more than what was handed on since the last look. What is published in this tick may count
   * only in the next look.
   */
  function look(): void {
    unlooked = spread = 0
    for (const reader of readers) if (reader.client.waiting() > limit + longest) found(reader)
  }

  return (bytes, count) => {
    if (bytes > longest) longest = bytes
    unlooked += bytes + FRAME_BYTES
    spread += (bytes + FRAME_BYTES) * count
    if (unlooked >= limit / 2 && spread >= LOOK_BYTES * readers.size) look()
  }
}
