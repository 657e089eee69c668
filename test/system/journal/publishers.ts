/** Owns random publishers and what a model keeps of them: which transaction committed what, and which ended before another began. */
import type postgres from 'postgres'
import type { Random } from '../../support/random.ts'

export interface Published {
  readonly channel: string
  readonly text: string
}

export interface Transaction {
  readonly messages: readonly Published[]
  /** Counts what happens: when the first statement was sent, and when the commit was answered. */
  readonly began: number
  readonly ended: number
}

export interface Model {
  readonly committed: Transaction[]
  /** The next moment. */
  tick(): number
}

export function createModel(): Model {
  let moment = 0
  return { committed: [], tick: () => ++moment }
}

export const CHANNELS = ['a', 'b', 'c', 'd', 'e', 'f']

/** Long enough for a sequencer to fall asleep meanwhile. */
const LONG = 150

let names = 0

/** One transaction: some messages, of which some go with their savepoint, some waits, and at last a commit or a rollback. */
export async function publishOnce(session: postgres.Sql, model: Model, random: Random, isLong: boolean): Promise<void> {
  const kept: Published[] = []
  const began = model.tick()
  const publish = async (to: Published[]): Promise<void> => {
    const message = { channel: random.pick(CHANNELS), text: `message ${++names}` }
    await session`select pgws.publish(${message.channel}, ${message.text})`
    to.push(message)
  }
  await session`begin`
  for (let step = 1 + random.below(4); step > 0; step--) {
    const kind = random.below(10)
    if (kind < 7) await publish(kept)
    else {
      const within: Published[] = []
      await session`savepoint within`
      for (let more = random.below(3); more >= 0; more--) await publish(within)
      if (kind === 7) {
        await session`release within`
        kept.push(...within)
      } else await session`rollback to within`
    }
  }
  if (isLong) await Bun.sleep(LONG + random.below(LONG))
  if (random.below(8) === 0) return void (await session`rollback`)
  await session`commit`
  if (kept.length > 0) model.committed.push({ messages: kept, began, ended: model.tick() })
}
