/** Owns what sessions read: how they come to a channel, from its history where they resume, and how they learn what they missed. */

import type { Grant } from '../access/grant.ts'
import type { Metrics } from '../metrics.ts'
import type { ClosureCode, Refusal } from '../refusal.ts'
import type { Broker, History } from './broker.ts'
import { createCatchUp } from './catch-up.ts'
import type { Client, Protocol } from './client.ts'
import type { AloneReader, Hub } from './hub.ts'

/** What each session keeps for this. */
export interface Reading {
  readonly grant: Grant
  readonly protocol: Protocol
  readonly client: Client
  closure: ClosureCode | undefined
  /** What it resumes at the moment; most clients never do. */
  resuming: Set<Resumption> | undefined
}

interface Resumption {
  /** Those that are not left yet. */
  readonly channels: string[]
  readonly reader: AloneReader
}

/** Where a reader begins: behind a number, or where history is gone; undefined is live. */
export type Beginning = number | 'lost' | undefined

export interface Readings<R> {
  /** @returns a promise where channels do not stand yet: a refusal for each that cannot. */
  join(session: R, channels: readonly string[]): Promise<readonly (Refusal | undefined)[]> | undefined
  /** Hands the client what is on channels that it joined, from now on or from its beginning. */
  begin(session: R, channels: readonly string[], beginning: Beginning): void
  leave(session: R, channels: readonly string[]): void
  /**
   * Tells a reader that it may have missed messages between two times, in milliseconds of UNIX time. One that cannot be told is closed,
   * where that is wanted.
   */
  missed(session: R, channels: readonly string[], from: number | undefined, to: number): void
}

export interface ReadingOptions<R> {
  readonly hub: Hub
  readonly history: Broker['history']
  readonly metrics: Pick<Metrics, 'delivered' | 'deliveredBytes'>
  /** Bytes that may wait for a reader that resumes, before more of history is written. */
  readonly room: number
  readonly closeAfterOutage: boolean
  readonly isOpen: (session: R) => boolean
  readonly close: (session: R, closure: ClosureCode) => void
  readonly handedOn: (bytes: number, readers: number) => void
}

/** The position of a reader that begins there. */
export const startOf = (history: History, beginning: Beginning): string =>
  history.position(typeof beginning === 'number' ? beginning : history.head)

export function createReadings<R extends Reading>(options: ReadingOptions<R>): Readings<R> {
  const { hub, history, metrics, handedOn } = options
  const catchUp =
    history &&
    createCatchUp({
      history,
      room: options.room,
      handedOn(bytes, readers) {
        metrics.delivered.add(readers)
        metrics.deliveredBytes.add(bytes)
        handedOn(bytes, readers)
      },
    })

  function write(session: R, text: string): void {
    session.client.write(text)
    handedOn(Buffer.byteLength(text), 1)
  }

  function missed(session: R, channels: readonly string[], from: number | undefined, to: number): void {
    const { tell } = session.protocol
    if (!tell) {
      if (options.closeAfterOutage) options.close(session, 'MESSAGES_MISSED')
      return
    }
    const times = { from: from === undefined ? null : from / 1000, to: to / 1000 }
    for (const channel of channels) write(session, tell({ event: 'MessagesMissed', channel, ...times }))
  }

  /** What it was written last may have shown that it reads too slowly: who was dropped joins nothing that it would never leave. */
  function joinLive(session: R, channels: readonly string[]): void {
    if (options.isOpen(session)) for (const channel of channels) session.client.join(channel)
  }

  function end(session: R, resumption: Resumption): void {
    session.resuming?.delete(resumption)
    for (const channel of resumption.channels) hub.readTogether(channel, resumption.reader)
  }

  /** It resumes the others all the same. */
  function leaveOne(session: R, resumption: Resumption, channel: string): void {
    const at = resumption.channels.indexOf(channel)
    if (at === -1) return
    hub.readTogether(channel, resumption.reader)
    resumption.channels.splice(at, 1)
    if (resumption.channels.length === 0) end(session, resumption)
  }

  function resume(session: R, asked: readonly string[], number: number): void {
    const { client, protocol } = session
    const channels = [...asked]
    const resumption = { channels, reader: { form: protocol.form, write: (text: string) => write(session, text) } }
    session.resuming ??= new Set()
    session.resuming.add(resumption)
    for (const channel of channels) hub.readAlone(channel, resumption.reader)
    const caughtUp = (): void => {
      end(session, resumption)
      joinLive(session, channels)
    }
    catchUp?.(
      {
        client,
        form: protocol.form,
        isOpen: () => options.isOpen(session) && session.resuming?.has(resumption) === true,
        caughtUp,
        lost() {
          missed(session, channels, undefined, Date.now())
          caughtUp()
        },
      },
      channels,
      number,
    )
  }

  return {
    join(session, channels) {
      const waits: Promise<Refusal | undefined>[] = []
      for (const channel of channels) {
        const following = hub.join(channel, session.protocol.form)
        if (following !== undefined) waits.push(following)
      }
      return waits.length === 0 ? undefined : Promise.all(waits)
    },
    begin(session, channels, beginning) {
      const { begins } = session.protocol
      if (begins && history) write(session, begins(startOf(history, beginning)))
      if (typeof beginning === 'number' && channels.length > 0) return resume(session, channels, beginning)
      if (beginning === 'lost') missed(session, channels, undefined, Date.now())
      joinLive(session, channels)
    },
    leave(session, channels) {
      for (const channel of channels) {
        for (const resumption of session.resuming ?? []) leaveOne(session, resumption, channel)
        hub.leave(channel, session.protocol.form)
      }
    },
    missed,
  }
}
