/**
 * Owns the LISTEN session as the broker has it: set up with all its channels, proven, and dropped.
 *
 * It stands only once a notification has come back: a pooler or a replica may seem to accept LISTEN and never deliver.
 */

import type { Database } from '../../database/connection.ts'
import type { Log } from '../../log.ts'
import type { Check } from './check.ts'
import type { Delivery } from './delivery.ts'
import type { FollowedChannels } from './followed-channels.ts'
import type { KeptMessages } from './journal/kept-messages.ts'
import { type Listener, openListener } from './listener.ts'

export interface Listening {
  /** The session, from the moment its first LISTEN is sent. */
  readonly listener: Listener | undefined
  /** Sets up the session and proves it. @throws what it met, with the session closed. */
  open(): Promise<void>
  /** Checks the session from now on. */
  watch(): void
  drop(): void
}

/**
 * What to call for a notification on each of these database channels. It is also called whenever LISTEN stands anew, for some may have
 * been missed.
 */
export type Signals = ReadonlyMap<string, () => void>

export interface ListeningOptions {
  readonly database: Database
  /** The channel that carries every message. */
  readonly channel: string
  readonly check: Check
  readonly delivery: Delivery
  readonly journal: KeptMessages | undefined
  readonly signals: Signals
  readonly followed: FollowedChannels
  readonly log: Log
  readonly isStopped: () => boolean
  /** The session ended, or the check has found a fault. */
  readonly lost: (cause: string) => void
}

export function createListening(options: ListeningOptions): Listening {
  const { database, channel, check, delivery, journal, signals, followed, log, isStopped, lost } = options
  const bells = journal?.bells ?? []
  let listener: Listener | undefined

  async function open(): Promise<void> {
    const opened = await openListener({
      database,
      checkChannel: check.channel,
      log,
      checked: check.arrived,
      notified: (name, notification) => {
        const signalled = signals.get(name)
        if (signalled) signalled()
        else if (bells.includes(name)) journal?.rang(name, notification)
        else delivery.notified(name, notification)
      },
    })
    if (isStopped()) return opened.close()
    listener = opened
    try {
      for (const name of await opened.listenToAll(channel, [...bells, ...signals.keys(), ...followed.names])) {
        followed.remove(name)
        delivery.channelLost(name)
      }
      await check.prove(opened)
      await journal?.start()
    } catch (error) {
      drop()
      throw error
    }
    if (isStopped()) return
    delivery.arrived()
    for (const signalled of signals.values()) signalled()
    const { place, version, encrypted } = opened.server
    log.info('listening', { channel, server: place, version, tls: encrypted })
    void opened.closed.then(() => {
      if (listener === opened) lost('the connection to the database closed')
    })
  }

  function drop(): void {
    check.stop()
    listener?.close()
    listener = undefined
  }

  return {
    get listener() {
      return listener
    },
    open,
    watch() {
      if (listener) check.watch(listener, lost)
    },
    drop,
  }
}
