/** Owns what a client that sends commands is subscribed to. */

import { allows, canRead, type Decision, type Grant, isUndecided } from '../access/grant.ts'
import { type CommandCode, commandCode, type Refusal, refuse } from '../refusal.ts'
import { createBeginnings, isBeginning } from './beginning.ts'
import type { Asked, Broker } from './broker.ts'
import type { Client, CommandEvent, Id, Protocol, SubscribeCommand } from './client.ts'
import { type Beginning, type Readings, startOf } from './reading.ts'
import type { Rights } from './rights.ts'

/** What each session keeps for this. */
export interface Subscribing {
  readonly client: Client
  readonly protocol: Protocol
  grant: Grant
  /** Those that it reads. */
  channels: readonly string[]
  readonly conversation: SubscribingMore | undefined
}

/** What is kept of it with a client that sends commands alone. */
export interface SubscribingMore {
  /** Subscriptions that do not stand yet. */
  joining: readonly Joining[]
}

interface Joining {
  readonly id: Id
  readonly channel: string
}

export interface Subscriptions<S> {
  subscribe(session: S, command: SubscribeCommand): void
  unsubscribe(session: S, command: Joining): void
  /** Ends what its grant does not allow any more. */
  narrow(session: S): void
  /** The client is gone. */
  closed(session: S): void
  /** Where a reader is that begins there; null where no history is kept. */
  position(beginning: Beginning): string | null
}

export interface SubscriptionsOptions<S> {
  readonly readings: Readings<S>
  readonly rights: Rights<S>
  readonly history: Broker['history']
  /** Of one client at most. */
  readonly maxSubscriptions: number
  /** It is on other channels. */
  readonly changed: (session: S) => void
  readonly write: (session: S, event: CommandEvent) => void
  readonly refuse: (session: S, id: Id, code: CommandCode) => void
}

export function createSubscriptions<S extends Subscribing>(options: SubscriptionsOptions<S>): Subscriptions<S> {
  const { readings, rights, history, changed, write } = options
  const findBeginning = createBeginnings(history)

  const position = (beginning: Beginning): string | null => (history === undefined ? null : startOf(history, beginning))

  function beginningOf({ protocol }: S, channel: string, asked: Asked): ReturnType<typeof findBeginning> {
    // Nothing is kept that could lie behind the position.
    if (history === undefined && asked && 'since' in asked) return 'lost'
    return findBeginning(asked, [channel], protocol, true)
  }

  function subscribe(session: S, { id, channel, asked }: SubscribeCommand): void {
    const { grant, channels, conversation } = session
    if (!conversation) return
    const fault = tokenFault(grant, channel)
    if (fault) return options.refuse(session, id, fault)
    if (isOn(session, channel)) return write(session, { id, event: 'Subscribed', channel, position: position(undefined) })
    if (channels.length + conversation.joining.length >= options.maxSubscriptions)
      return options.refuse(session, id, 'TOO_MANY_SUBSCRIPTIONS')
    const following = readings.join(session, [channel])
    const beginning = beginningOf(session, channel, asked)
    const joining: Joining = { id, channel }
    conversation.joining = [...conversation.joining, joining]
    const decision = rights.ask(session, channel)
    if (following === undefined && !(beginning instanceof Promise) && !(decision instanceof Promise))
      return joined(session, joining, undefined, beginning, decision)
    void Promise.all([following, beginning, decision]).then(([refusals, found, decided]) =>
      joined(session, joining, refusals?.[0], found, decided),
    )
  }

  function joined(
    session: S,
    joining: Joining,
    refusal: Refusal | undefined,
    found: Beginning | Refusal,
    decision: Decision | undefined,
  ): void {
    const { conversation } = session
    // It left meanwhile.
    if (!conversation?.joining.includes(joining)) return
    conversation.joining = conversation.joining.filter((other) => other !== joining)
    const { id, channel } = joining
    const isThere = isOn(session, channel)
    const fault = isUndecided(decision) ? decision : decisionFault(session.grant, channel)
    const begins = fault === undefined ? (refusal ?? found) : refuse(fault)
    if (isThere || !isBeginning(begins)) readings.leave(session, [channel])
    if (!isBeginning(begins)) return options.refuse(session, id, commandCode(begins))
    if (!isThere) {
      session.channels = [...session.channels, channel]
      changed(session)
    }
    write(session, { id, event: 'Subscribed', channel, position: position(begins) })
    if (!isThere && isOn(session, channel)) readings.begin(session, [channel], begins)
  }

  /** Undoes what does not stand yet. */
  function abandon(session: S, codeOf: (channel: string) => CommandCode | undefined): void {
    const { conversation } = session
    if (!conversation) return
    for (const joining of conversation.joining) {
      const code = codeOf(joining.channel)
      if (code === undefined || !conversation.joining.includes(joining)) continue
      conversation.joining = conversation.joining.filter((other) => other !== joining)
      readings.leave(session, [joining.channel])
      options.refuse(session, joining.id, code)
    }
  }

  function leave(session: S, channel: string): void {
    session.channels = session.channels.filter((other) => other !== channel)
    session.client.leave(channel)
    readings.leave(session, [channel])
    changed(session)
  }

  function unsubscribe(session: S, { id, channel }: Joining): void {
    const isJoining = session.conversation?.joining.some((joining) => joining.channel === channel)
    abandon(session, (other) => (other === channel ? 'NOT_SUBSCRIBED' : undefined))
    const isThere = isOn(session, channel)
    if (isThere) leave(session, channel)
    if (isThere || isJoining) write(session, { id, event: 'Unsubscribed', channel })
    else options.refuse(session, id, 'NOT_SUBSCRIBED')
  }

  return {
    subscribe,
    unsubscribe,
    narrow(session) {
      for (const channel of session.channels) {
        const code = tokenFault(session.grant, channel) ?? (canRead(session.grant, channel) ? undefined : 'ACCESS_WITHDRAWN')
        if (code === undefined || !isOn(session, channel)) continue
        leave(session, channel)
        write(session, { event: 'Unsubscribed', channel, code })
      }
      abandon(session, (channel) => tokenFault(session.grant, channel))
    },
    closed(session) {
      const { conversation } = session
      if (!conversation) return
      for (const { channel } of conversation.joining) readings.leave(session, [channel])
      conversation.joining = []
    },
    position,
  }
}

/** A client that is found to read too slowly, as it is written to, is on no channel any more. */
const isOn = ({ channels }: Subscribing, channel: string): boolean => channels.includes(channel)

function tokenFault(grant: Grant, channel: string): 'MODE_NOT_ALLOWED' | 'CHANNEL_NOT_ALLOWED' | undefined {
  if (!grant.canRead) return 'MODE_NOT_ALLOWED'
  return allows(grant, channel) ? undefined : 'CHANNEL_NOT_ALLOWED'
}

/** What a decision leaves to be refused. */
function decisionFault(grant: Grant, channel: string): 'MODE_NOT_ALLOWED' | 'CHANNEL_NOT_ALLOWED' | undefined {
  if (canRead(grant, channel)) return undefined
  return grant.rights?.has(channel) ? 'MODE_NOT_ALLOWED' : 'CHANNEL_NOT_ALLOWED'
}
