/** Owns handing notifications to the receiver. It first tells the receiver what may have been missed before them. */

import type { Receiver } from '../../channels/broker.ts'
import { channelOf } from '../../channels/envelope.ts'
import type { Log } from '../../log.ts'
import type { Metrics } from '../../metrics.ts'
import { shown } from '../../shown.ts'
import { createMissed, type Mark, type Missed } from './missed.ts'

export interface Delivery extends Pick<Missed, 'arrived' | 'heardAt' | 'mark' | 'proven' | 'lost'> {
  /** From now on, what arrives goes to this receiver. */
  start(receiver: Receiver): void
  /** A notification of a channel that is listened to. */
  notified(channel: string, notification: string): void
  /** A message of the journal. */
  kept(channel: string, text: string, position: string): void
  /** Messages of the journal are gone. */
  historyLost(): void
  /** LISTEN stands again. @param since when it was lost. */
  restored(since: Mark): void
  /** A channel is not listened to any more. */
  channelLost(channel: string): void
  /** Nothing will arrive any more. */
  ended(): void
}

/** @param channel the channel whose notifications name the channel that they are for. */
export function createDelivery(channel: string, log: Log, metrics: Metrics): Delivery {
  const missed = createMissed({ wall: Date.now, monotonic: () => performance.now() })
  let receiver: Receiver | undefined

  function tellMissed(): void {
    const span = missed.take()
    if (span) receiver?.missed(span.from, span.to)
  }

  return {
    ...missed,
    get heardAt() {
      return missed.heardAt
    },
    start(to) {
      receiver = to
    },
    notified(name, notification) {
      missed.arrived()
      tellMissed()
      receiver?.message(name === channel ? (channelOf(notification) ?? channel) : name, notification)
    },
    kept: (name, text, position) => receiver?.message(name, text, position),
    historyLost: () => receiver?.historyLost(),
    restored(since) {
      const from = missed.timeOf(since)
      const to = missed.lastArrival
      tellMissed()
      metrics.reconnections.add()
      metrics.outage.add((to - from) / 1000)
      log.info('listening again', { 'missed-from': from / 1000, 'missed-to': to / 1000 })
      receiver?.restored(from, to)
    },
    channelLost(name) {
      log.error('cannot listen to a channel', { channel: shown(name) })
      receiver?.lost(name)
    },
    ended() {
      log.error('stopping, since the listener lost is not healed', { 'set-to-heal': 'PGWS_CHECK_LISTENER_INTERVAL' })
      receiver?.ended()
    },
  }
}
