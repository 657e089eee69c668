/**
 * Owns the states of a server's sequencer, and tells each change to the log.
 *
 *     connecting ──▶ standing by ──lock──▶ awake ──quiet──▶ half asleep ──▶ asleep ──bells──▶ awake …
 *                         └──nobody looks──▶ standing in          any ──lost──▶ waiting ──▶ connecting …
 */
import type { Log } from '../../../log.ts'

export type SequencerState =
  | 'stopped'
  | 'connecting'
  | 'waiting'
  | 'standing by'
  | 'standing in'
  | 'awake'
  | 'half asleep'
  | 'asleep'
  | 'pooled'

export interface SequencerStates {
  readonly current: SequencerState
  is(wanted: SequencerState): boolean
  enter(next: SequencerState): void
}

export function createSequencerStates(log: Log): SequencerStates {
  let current: SequencerState = 'waiting'
  return {
    get current() {
      return current
    },
    is: (wanted) => current === wanted,
    enter(next) {
      if (current !== next) log.debug('sequencer', { state: next })
      current = next
    },
  }
}
