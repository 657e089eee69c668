import { expect, test } from 'bun:test'
import { askWithin } from '../../lib/database/asking.ts'
import type { Connection, DatabaseError } from '../../lib/database/connection.ts'

/** A session that answers after some milliseconds, or when it is closed. */
function answering(milliseconds: number): Connection & { readonly closedFor: DatabaseError[] } {
  const closedFor: DatabaseError[] = []
  const { promise, resolve, reject } = Promise.withResolvers<readonly []>()
  const session = {
    closedFor,
    query: () => {
      setTimeout(() => resolve([]), milliseconds)
      return promise
    },
    close(reason: DatabaseError) {
      closedFor.push(reason)
      reject(reason)
    },
  }
  // What is asked of a session here is to query and to close.
  return session as unknown as ReturnType<typeof answering>
}

const codeOf = (asked: Promise<unknown>): Promise<unknown> =>
  asked.then(
    () => 'answered',
    ({ code }: DatabaseError) => code,
  )

test('a session that does not answer within its limit is ended', async () => {
  const session = answering(1000)
  expect(await codeOf(askWithin(10, session, 'select 1'))).toBe('ANSWER_TIMEOUT')
  expect(session.closedFor.length).toBe(1)
})

test('it gets as much time again for as long as the database is at work, and is ended where nobody can tell', async () => {
  const busy = answering(60)
  let asked = 0
  const isBusy = async (): Promise<boolean> => ++asked > 0
  expect(await codeOf(askWithin(10, busy, 'select 1', [], isBusy))).toBe('answered')
  expect(asked).toBeGreaterThan(1)
  expect(busy.closedFor).toEqual([])
  const lost = answering(1000)
  expect(await codeOf(askWithin(10, lost, 'select 1', [], () => Promise.reject(new Error('no way'))))).toBe('ANSWER_TIMEOUT')
})

test('without a session there is no answer', async () => {
  expect(await codeOf(askWithin(10, undefined, 'select 1'))).toBe('CONNECTION_CLOSED')
})
