/** Owns the wait to become the sequencer, and what replaces one that is gone, or hangs with its session open. */
import type { Looking } from './looks.ts'

export interface StandingBy extends Looking {
  /** Milliseconds between two checks of the sequencer. */
  readonly period: number
}

/** Milliseconds between the looks of one who stands in for another, and until one whose session was ended has gone. */
const SHORTLY = 25

const BECOME = 'select pgws.become_sequencer() as become'

const CHECK = 'select pgws.become_sequencer() as become, pgws.is_behind() as behind, head::float8 as head from pgws.stand()'

/** Returns once this is the sequencer, or nobody wants that any more. */
export async function standBy(standing: StandingBy): Promise<void> {
  const { states, bells, ask, period, log } = standing
  states.enter('standing by')
  // Bells are for whoever looks.
  bells.forget()
  /** Where the journal stood at the last check, if a message had no position then. */
  let behindAt: number | undefined
  while (states.is('standing by')) {
    const found = await ask(CHECK)
    if (found.become === true) return
    const head = Number(found.head)
    if (found.behind === true && behindAt === head) {
      const { ended } = await ask('select pgws.replace_sequencer() as ended')
      if (ended !== null) {
        log.warning('the sequencer does not look any more, and is replaced', { position: head })
        if (ended === true) await bells.wait(SHORTLY)
        else await standIn(standing, head)
        behindAt = undefined
        continue
      }
    }
    behindAt = found.behind === true ? head : undefined
    await bells.wait(period)
  }
}

/** Looks in place of one whose session may not be ended, until that looks again or has gone. */
async function standIn({ states, bells, ask, look, period }: StandingBy, from: number): Promise<void> {
  states.enter('standing in')
  let head = from
  let checkedAt = performance.now()
  while (states.is('standing in')) {
    const found = await look()
    if (found === undefined || found.head - found.fresh > head) break
    head = found.head
    if (performance.now() - checkedAt >= period) {
      checkedAt = performance.now()
      if ((await ask(BECOME)).become === true) break
    }
    await bells.wait(SHORTLY)
  }
  if (states.is('standing in')) states.enter('standing by')
}
