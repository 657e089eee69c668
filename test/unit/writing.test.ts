/** A server's turns with the database: what a round writes, and when it ends. */
import { expect, test } from 'bun:test'
import type { Registered } from '../../lib/channels/registry.ts'
import { createChanges, type Part } from '../../lib/rules/changes.ts'
import { createOrders } from '../../lib/rules/orders.ts'
import type { Statements } from '../../lib/rules/statements.ts'
import { createWriting } from '../../lib/rules/writing.ts'
import { client } from '../support/registered.ts'

const BUSY = 20

test('whoever comes while a round writes is written by the next one', async () => {
  const changes = createChanges<Registered>()
  const come = (id: string): void => {
    const one = client(id)
    changes.opened(one)
    changes.changed(one)
  }
  const written: number[] = []
  const statements: Pick<Statements, 'begin' | 'look' | 'write'> = {
    begin: async () => undefined,
    look: async () => ({ isKnown: true, snapshot: '1:1:', orders: [] }),
    async write(_: string, part: Part<unknown>) {
      written.push(part.clients.length)
      if (written.length < BUSY) come(`during ${written.length}`)
      return true
    },
  }
  const writing = createWriting({
    // The others are not asked.
    statements: statements as Statements,
    changes,
    orders: createOrders(),
    hasPresence: false,
    shownClaims: undefined,
    ordered: () => undefined,
  })
  for (let index = 0; index < 5000; index++) come(`${index}`)
  await writing.round('one')
  expect(written).toEqual([2000, 2000, 1002])
  await writing.round('one')
  expect(written).toEqual([2000, 2000, 1002, 1])
})
