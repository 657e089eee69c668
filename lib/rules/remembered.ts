/** Owns decisions that are remembered for a second, so that many connections of one token are one question. */
import type { Decision } from '../access/grant.ts'

/** Milliseconds. */
const FRESH = 1000

/** The most decisions, and characters of their keys. */
const MOST = 10_000
const MOST_CHARACTERS = 8_000_000

interface Entry {
  readonly decision: Decision
  readonly until: number
}

export interface Remembered {
  get(key: string): Decision | undefined
  put(key: string, decision: Decision): void
  clear(): void
}

/** @param now a clock that never goes back, in milliseconds. */
export function createRemembered(now: () => number): Remembered {
  /** The oldest first. */
  const entries = new Map<string, Entry>()
  let characters = 0

  function remove(key: string): void {
    if (entries.delete(key)) characters -= key.length
  }

  return {
    get(key) {
      const entry = entries.get(key)
      return entry !== undefined && now() < entry.until ? entry.decision : undefined
    },
    put(key, decision) {
      remove(key)
      entries.set(key, { decision, until: now() + FRESH })
      characters += key.length
      for (const [oldest, { until }] of entries) {
        if (until > now() && entries.size <= MOST && characters <= MOST_CHARACTERS) break
        remove(oldest)
      }
    },
    clear() {
      entries.clear()
      characters = 0
    },
  }
}
