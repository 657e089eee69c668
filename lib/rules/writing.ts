/** Owns one server's turns with the database: what is to be written is written, and what was ordered is found. */

import type { Registered } from '../channels/registry.ts'
import type { Changes } from './changes.ts'
import type { Orders } from './orders.ts'
import type { Statements } from './statements.ts'

export interface Writing {
  /** Does all there is to do now. Orders go ahead of rows. @throws DatabaseError */
  round(server: string): Promise<void>
  /** There may be an order. */
  ordered(): void
  readonly isOrdered: boolean
  /** What was under way may have failed. */
  failed(): void
  /** Removes what this server wrote. */
  end(server: string): Promise<void>
  readonly rows: number
  readonly revocations: number
}

export interface WritingOptions<Client extends Registered> {
  readonly statements: Statements
  readonly changes: Changes<Client>
  readonly orders: Orders
  readonly hasPresence: boolean
  readonly shownClaims: readonly string[] | undefined
  readonly ordered: (client: Client, reason: string | undefined) => void
}

/** Milliseconds between two signs of life. */
const LOOK_EVERY = 5000

/** Signs of life without a break after which a server takes another, of which there is none, for dead. */
const SURE = 4

export function createWriting<Client extends Registered>(options: WritingOptions<Client>): Writing {
  const { statements, changes, orders } = options
  /** Whether the database has a row of this server, and the snapshot of the last look. */
  let isKnown = false
  let snapshot = ''
  let lookedAt = 0
  let looks = 0
  let isOrdered = false
  let rows = 0
  let revocations = 0

  async function begin(server: string): Promise<void> {
    changes.restart()
    await statements.begin(server, options.hasPresence, options.shownClaims)
    isKnown = true
    snapshot = ''
    looks = 0
  }

  async function look(server: string): Promise<void> {
    isOrdered = false
    const isFirst = snapshot === ''
    const found = await statements.look(server, snapshot, looks >= SURE)
    const now = performance.now()
    looks++
    lookedAt = now
    isKnown = found.isKnown
    snapshot = found.snapshot
    if (found.orders.length > 0) {
      const reasonOf = orders.take(found.orders, now)
      // The first look also finds orders from before who is here came.
      for (const client of changes.here) options.ordered(client, isFirst ? orders.reasonToEnd(client, now) : reasonOf(client))
    }
    revocations = orders.inForce(now)
  }

  /** @returns how many it wrote of, or tried to. */
  async function write(server: string): Promise<number> {
    const part = changes.take(performance.now())
    try {
      isKnown = await statements.write(server, part)
      rows += part.clients.length
      return part.clients.length
    } catch (error) {
      changes.giveBack(part)
      throw error
    }
  }

  return {
    async round(server) {
      if (changes.areTooMany) isKnown = false
      // Who comes meanwhile is for the next round, or while clients come and go a round would never end.
      let left = changes.count
      for (;;) {
        if (!isKnown) {
          await begin(server)
          left = changes.count
        } else if (isOrdered || snapshot === '' || performance.now() - lookedAt >= LOOK_EVERY) await look(server)
        else if (left > 0) left -= await write(server)
        else return
      }
    },
    ordered() {
      isOrdered = true
    },
    get isOrdered() {
      return isOrdered
    },
    failed() {
      looks = 0
      // An order may have come with the answer that was lost.
      isOrdered = true
    },
    async end(server) {
      if (isKnown) await statements.end(server)
    },
    get rows() {
      return rows
    },
    get revocations() {
      return revocations
    },
  }
}
