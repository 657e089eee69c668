/** Owns who waits until this server has read the journal up to a number. */
import type { DatabaseError } from '../../../database/connection.ts'

export interface Arrivals {
  /** How many wait. */
  readonly length: number
  /** Settled when the journal is read up to a number. @throws DatabaseError when it cannot be read before. */
  wait(number: number): Promise<void>
  /** The journal is read up to this number. */
  arrived(head: number): void
  /** The journal cannot be read: nobody waits any longer. */
  fail(fault: DatabaseError): void
}

interface Waiting {
  readonly number: number
  readonly arrived: () => void
  readonly failed: (fault: DatabaseError) => void
}

export function createArrivals(): Arrivals {
  let waiting: Waiting[] = []
  return {
    get length() {
      return waiting.length
    },
    wait: (number) => new Promise((arrived, failed) => waiting.push({ number, arrived, failed })),
    arrived(head) {
      const done = waiting.filter(({ number }) => number <= head)
      waiting = waiting.filter(({ number }) => number > head)
      for (const { arrived } of done) arrived()
    },
    fail(fault) {
      const left = waiting
      waiting = []
      for (const { failed } of left) failed(fault)
    },
  }
}
