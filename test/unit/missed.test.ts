import { expect, test } from 'bun:test'
import { createMissed } from '../../lib/broker/postgres/missed.ts'

/** Its clocks stand where the test puts them. */
function createAt(at: number) {
  const clock = { wall: at, monotonic: 0 }
  const missed = createMissed({ wall: () => clock.wall, monotonic: () => clock.monotonic })
  return { missed, clock }
}

test('without an outage there is nothing to tell', () => {
  const { missed } = createAt(1000)
  missed.arrived()
  missed.proven(900)
  expect(missed.take()).toBeUndefined()
})

test('what was missed goes from where the last check that came back set out to what has just arrived, and is told once', () => {
  const { missed, clock } = createAt(1000)
  missed.proven(900)
  missed.arrived()
  expect(missed.lost()).toBe(900)
  clock.wall = 5000
  missed.arrived()
  expect(missed.take()).toEqual({ from: 900, to: 5000 })
  expect(missed.take()).toBeUndefined()
})

test('what was missed begins at the first loss, however many sessions are lost before it is told', () => {
  const { missed, clock } = createAt(1000)
  missed.proven(900)
  missed.lost()
  missed.proven(2000)
  expect(missed.lost()).toBe(2000)
  clock.wall = 5000
  missed.arrived()
  expect(missed.take()).toEqual({ from: 900, to: 5000 })
})

test('an outage that follows one of which was told begins anew', () => {
  const { missed, clock } = createAt(1000)
  missed.proven(900)
  missed.lost()
  missed.take()
  missed.proven(2000)
  missed.lost()
  clock.wall = 5000
  missed.arrived()
  expect(missed.take()).toEqual({ from: 2000, to: 5000 })
})

test('an arrival is told by the clock of readers, and measured by the one that nobody sets', () => {
  const { missed, clock } = createAt(1000)
  clock.monotonic = 70
  missed.arrived()
  clock.wall = 400
  clock.monotonic = 80
  expect([missed.lastArrival, missed.heardAt]).toEqual([1000, 70])
})
