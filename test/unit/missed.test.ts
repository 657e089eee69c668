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
  missed.proven({ wall: 900, monotonic: 0 })
  expect(missed.take()).toBeUndefined()
})

test('what was missed goes from where the last check that came back set out to what has just arrived, and is told once', () => {
  const { missed, clock } = createAt(1000)
  missed.proven({ wall: 900, monotonic: 0 })
  missed.arrived()
  expect(missed.lost()).toEqual({ wall: 900, monotonic: 0 })
  clock.wall = 5000
  missed.arrived()
  expect(missed.take()).toEqual({ from: 900, to: 5000 })
  expect(missed.take()).toBeUndefined()
})

test('what was missed begins at the first loss, however many sessions are lost before it is told', () => {
  const { missed, clock } = createAt(1000)
  missed.proven({ wall: 900, monotonic: 0 })
  missed.lost()
  missed.proven({ wall: 2000, monotonic: 0 })
  expect(missed.lost()).toEqual({ wall: 2000, monotonic: 0 })
  clock.wall = 5000
  missed.arrived()
  expect(missed.take()).toEqual({ from: 900, to: 5000 })
})

test('an outage that follows one of which was told begins anew', () => {
  const { missed, clock } = createAt(1000)
  missed.proven({ wall: 900, monotonic: 0 })
  missed.lost()
  missed.take()
  missed.proven({ wall: 2000, monotonic: 0 })
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

test('where the wall clock was set back, before the loss or behind it, the span is one by the new time that holds what was missed', () => {
  for (const isAheadOfLoss of [true, false]) {
    const { missed, clock } = createAt(3_600_000)
    missed.proven(missed.mark())
    if (isAheadOfLoss) clock.wall = 100
    missed.lost()
    Object.assign(clock, { wall: 600, monotonic: 500 })
    missed.arrived()
    expect(missed.take()).toEqual({ from: 100, to: 600 })
  }
})
