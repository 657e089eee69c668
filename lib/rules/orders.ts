/** Owns what the database ordered: which clients are to end, and which tokens are let in no more. Pure: the time is a parameter. */

import { createSelection } from './selection.ts'

/** As the database tells it. Times in seconds. */
export interface Order {
  /** A JSON object: it is about who has these claims. */
  readonly claims: string
  readonly reason: string
  /** For how long it has stood. */
  readonly age: number
  /** For how much longer no such token is let in; null where it only ends connections. */
  readonly left: number | null
}

/** Whom orders may be about. */
interface Concerned {
  readonly grant: { readonly claims: string }
  readonly admittedAt: number
}

/** Times in milliseconds of one clock that never goes back. */
export interface Orders {
  /** @returns the reason to end a client that is there. */
  take(orders: readonly Order[], now: number): (client: Concerned) => string | undefined
  /** The reason to end a client that was admitted before an order came, or whose token is revoked. */
  reasonToEnd(client: Concerned, now: number): string | undefined
  isRevoked(claims: string, now: number): boolean
  /** Forgets what is over. @returns how many revocations are in force. */
  inForce(now: number): number
}

/** Milliseconds for which an order concerns who was admitted before it and is there only later: no upgrade waits so long. */
const REMEMBERED = 300_000

const REVOKED = 'Token revoked'

export function createOrders(): Orders {
  /** Until when. */
  const revoked = createSelection<number>()
  let recent: readonly { readonly at: number; readonly order: Order }[] = []

  const isRevoked = (claims: string, now: number): boolean => revoked.find(claims, (until) => now < until) !== undefined

  return {
    take(orders, now) {
      const taken = createSelection<Order>()
      for (const order of orders) {
        const { claims, left } = order
        taken.set(claims, order)
        if (left !== null) revoked.set(claims, Math.max(revoked.get(claims) ?? 0, now + left * 1000))
      }
      recent = [...recent, ...orders.map((order) => ({ at: now - order.age * 1000, order }))]
      return ({ grant }) => taken.find(grant.claims)?.reason
    },
    reasonToEnd({ grant, admittedAt }, now) {
      if (isRevoked(grant.claims, now)) return REVOKED
      const since = createSelection<Order>()
      for (const { at, order } of recent) if (at >= admittedAt) since.set(order.claims, order)
      return since.find(grant.claims)?.reason
    },
    isRevoked,
    inForce(now) {
      revoked.keep((until) => now < until)
      recent = recent.filter(({ at }) => now - at < REMEMBERED)
      return revoked.size
    },
  }
}
