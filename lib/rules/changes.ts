/** Owns who is here, and which of it is not written yet. */

import type { Registered } from '../channels/registry.ts'
import { rowOf } from './rows.ts'

/** What one statement writes. */
export interface Part<Client> {
  readonly clients: readonly Client[]
  /** JSON objects. */
  readonly rows: readonly string[]
  readonly gone: readonly string[]
}

export interface Changes<Client> {
  readonly here: ReadonlySet<Client>
  /** Clients that are to be written or removed. */
  readonly count: number
  /** It is better to write everything anew. */
  readonly areTooMany: boolean
  opened(client: Client): void
  /** @returns whether it is here. */
  changed(client: Client): boolean
  closed(client: Client): void
  /** Everybody who is here is to be written, and nothing else. */
  restart(): void
  take(now: number): Part<Client>
  /** It was not written. */
  giveBack(part: Part<Client>): void
}

/** Rows of one statement, and characters of their text. */
const PART_ROWS = 2000
const PART_LENGTH = 2 * 1024 * 1024

/** Clients that are gone and not yet removed. */
const MOST_GONE = 20_000

export function createChanges<Client extends Registered>(): Changes<Client> {
  const here = new Set<Client>()
  /** Who came or changed, and who is gone. */
  let pending = new Set<Client>()

  return {
    here,
    get count() {
      return pending.size
    },
    get areTooMany() {
      return pending.size > here.size + MOST_GONE
    },
    opened: (client) => void here.add(client),
    changed(client) {
      if (here.has(client)) pending.add(client)
      return here.has(client)
    },
    closed(client) {
      if (here.delete(client)) pending.add(client)
    },
    restart() {
      pending = new Set(here)
    },
    take(now) {
      const clients: Client[] = []
      const rows: string[] = []
      const gone: string[] = []
      let length = 0
      for (const client of pending) {
        if (clients.length >= PART_ROWS || length > PART_LENGTH) break
        pending.delete(client)
        clients.push(client)
        if (!here.has(client)) {
          gone.push(client.id)
          continue
        }
        const row = rowOf(client, now)
        rows.push(row)
        length += row.length
      }
      return { clients, rows, gone }
    },
    giveBack({ clients }) {
      for (const client of clients) pending.add(client)
    },
  }
}
