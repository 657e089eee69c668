/** Owns the part of the soak that is on channels of the journal: who publishes there, who reads, and what they are held to. */

import { createKeptLedger, type KeptVerdict } from '../../test/support/kept-ledger.ts'
import {
  askOnce,
  keptTruth,
  markEnds,
  numberOf,
  type Publishing,
  startClient,
  startKeptReader,
  startTransactions,
} from '../../test/support/kept-load.ts'
import type { Random } from '../../test/support/random.ts'
import { token } from '../../test/support/token.ts'
import type { Place } from './scene.ts'

/** The pattern of their names, and that of what clients publish on them. */
export const KEPT = 'kept-*'

const CHANNELS = ['kept-1', 'kept-2', 'kept-3', 'kept-4']
const STAYING = 2
const COMING_AND_GOING = 8
const PUBLISHERS = 3
const CLIENTS = 3

/** Milliseconds between two transactions of a publisher, and between two handfuls of a client. */
const PACE = 20

export interface KeptLoad {
  /** A server was killed. */
  abandon(place: Place): void
  /** Ends it, waits until everything is read, and judges it. */
  judge(): Promise<KeptVerdict>
}

export interface KeptLoadOptions {
  readonly uri: string
  readonly random: Random
  readonly steady: readonly Place[]
  readonly places: () => readonly Place[]
  /** Tells the publishers of one round from those of another. */
  readonly round: number
  /** Milliseconds of UNIX time. */
  readonly until: number
}

export async function startKeptLoad({ uri, random, steady, places, round, until }: KeptLoadOptions): Promise<KeptLoad> {
  const { below, pick } = random
  const ledger = createKeptLedger()
  const [row] = await askOnce(uri, 'select pgws.position() as position')
  const from = String(row?.position)
  const urlTo = async ({ origin, ca }: Place, mode: string, channels: readonly string[]) => ({
    url: `${origin}/${await token({ mode, channels })}`,
    ...(ca === undefined ? {} : { ca }),
  })
  const staying = Array.from({ length: STAYING }, (_, index) => {
    const place = steady[index % steady.length] ?? pick(steady)
    return {
      channels: CHANNELS,
      reader: startKeptReader({ place: () => urlTo(place, 'r', CHANNELS), channels: CHANNELS, ledger, from }),
    }
  })
  const comingAndGoing = Array.from({ length: COMING_AND_GOING }, () => {
    const channels = [...new Set([pick(CHANNELS), pick(CHANNELS)])]
    const comesAndGoes = { stay: () => 200 + below(5000), away: () => below(2000) }
    const place = () => urlTo(pick(places()), 'r', channels)
    return { channels, reader: startKeptReader({ place, channels, ledger, from, comesAndGoes }) }
  })
  const transactions = Array.from({ length: PUBLISHERS }, (_, index) =>
    startTransactions({ uri, channels: CHANNELS, name: `sql-${round}-${index}`, ledger, random, pace: PACE, longest: 4000 }),
  )

  /** One client follows another in its place. */
  async function keepSending(index: number): Promise<void> {
    for (let count = 0; Date.now() < until; count++) {
      const home = pick(places())
      const { url, ...more } = await urlTo(home, 'w', [pick(CHANNELS)])
      const client: Publishing | undefined = await startClient(url, `client-${round}-${index}-${count}`, ledger, {
        ...more,
        home,
        pace: PACE,
      }).catch(() => undefined)
      await Bun.sleep(Math.min(client ? 500 + below(8000) : 100, Math.max(0, until - Date.now())))
      await client?.stop()
    }
  }
  const sending = Array.from({ length: CLIENTS }, (_, index) => keepSending(index))

  return {
    abandon: ledger.abandon,
    async judge() {
      await Promise.all(sending)
      for (const one of transactions) await one.stop()
      // What clients sent may still wait for the database.
      await keptTruth(uri, numberOf(from), ledger)
      const marks = await markEnds(uri, CHANNELS, ledger)
      await Promise.all(
        [...staying, ...comingAndGoing].map(({ channels, reader }) =>
          reader.stop(channels.flatMap((name) => marks.get(name) ?? [])),
        ),
      )
      return ledger.judge(await keptTruth(uri, numberOf(from), ledger))
    },
  }
}
