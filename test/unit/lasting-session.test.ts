import { expect, test } from 'bun:test'
import { DatabaseError } from '../../lib/database/connection.ts'
import { createLastingSession } from '../../lib/database/lasting-session.ts'
import { createFakeDatabase } from '../support/fake-database.ts'

test('all who need the session while it opens get the same one, and there is no other', async () => {
  const database = createFakeDatabase()
  const session = createLastingSession(database)
  const [first, second] = await Promise.all([session.connected(), session.connected()])
  expect(first).toBe(second)
  expect(await session.connected()).toBe(first)
  session.stop()
  expect(database.sessions.map(({ isOpen }) => isOpen)).toEqual([false])
})

test('after a refused connection, and after the end of one, another is opened', async () => {
  const database = createFakeDatabase()
  const session = createLastingSession(database)
  database.fault = new DatabaseError('too many', '53300', true)
  const refused = await Promise.allSettled([session.connected(), session.connected()])
  expect(refused.map((result) => result.status === 'rejected' && result.reason.answered)).toEqual([false, false])
  database.fault = undefined
  const first = await session.connected()
  first.close()
  await first.closed
  expect(await session.connected()).not.toBe(first)
  session.stop()
  expect(database.sessions.map(({ isOpen }) => isOpen)).toEqual([false, false])
})
