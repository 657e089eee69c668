/**
 * Owns what the sequencer does: when it looks, and when publishers have to ring for that.
 *
 * Awake, it looks of its own accord, and holds the lock that keeps publishers from ringing. To fall asleep it gives that back and looks
 * once more: who had begun to publish before did not ring, so it stays half awake until all transactions of that moment have ended.
 */
import type { Ask, Looking } from './looks.ts'

export interface Sequencing extends Looking {
  /** Called behind each look. */
  readonly rotate: (ask: Ask) => Promise<void>
  /** Milliseconds between the looks of a sleeper, whose bell may be lost. */
  readonly unasked: number
}

/** Milliseconds between looks of one who is awake, and without a find after which it falls asleep. */
const AWAKE = 4
const QUIET = 50

/** Milliseconds between the looks of one who is half asleep. */
const HALF_ASLEEP = 25

/** Returns when the sequencer is stopped. @throws DatabaseError when the session is lost. */
export async function sequence({ states, bells, ask, look, rotate, unasked, log }: Sequencing): Promise<void> {
  // Publishers whose transactions may be prepared do not ring.
  const { prepares } = await ask("select current_setting('max_prepared_transactions') <> '0' as prepares")
  const asleep = prepares === true ? HALF_ASLEEP : unasked
  log.info('this server sequences the journal')
  states.enter('awake')
  let isBellHeld = false
  let foundAt = performance.now()
  /** Who has a smaller transaction id and is still under way did not ring. */
  let bound = 0n
  while (!states.is('stopped')) {
    if (states.is('awake') && !isBellHeld) isBellHeld = (await ask('select pgws.wake() as woke')).woke === true
    const found = await look()
    if (found === undefined || found.fresh > 0) foundAt = performance.now()
    await rotate(ask)
    if (states.is('pooled')) {
      await ask('select pgws.release()')
      await bells.wait(unasked)
    } else if (states.is('awake')) {
      if (performance.now() - foundAt < QUIET) {
        await bells.wait(Math.max(0, bells.lookedAt + AWAKE - performance.now()))
        continue
      }
      bound = BigInt(String((await ask('select pgws.fall_asleep()::text as bound')).bound))
      isBellHeld = false
      states.enter('half asleep')
    } else {
      if (states.is('half asleep') && found !== undefined && found.oldest > bound) states.enter('asleep')
      await bells.wait(states.is('asleep') ? asleep : HALF_ASLEEP)
      if (bells.areBusy) {
        foundAt = performance.now()
        states.enter('awake')
      }
    }
  }
}
