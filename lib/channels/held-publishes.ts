/** Owns publishes that wait until it is decided whether they are allowed: those behind them wait, too, so that all keep their order. */

import { allows, type Decision, type Grant } from '../access/grant.ts'
import type { Publishes, Unanswered } from './answers.ts'
import type { PublishCommand } from './client.ts'
import type { Rights } from './rights.ts'

export interface HeldPublish {
  readonly command: PublishCommand
  readonly unanswered: Unanswered
}

interface Waiting extends HeldPublish {
  /** Of which the question was asked. */
  grant: Grant
  isDecided: boolean
  decision: Decision | undefined
}

/** What waits of one client. */
export interface Held {
  readonly waiting: Waiting[]
  characters: number
}

interface Holding {
  held: Held | undefined
  readonly publishes: Publishes
}

export interface HeldOptions<S, C> {
  readonly rights: Pick<Rights<S>, 'ask'>
  readonly isOpen: (session: S) => boolean
  readonly hand: (session: S, conversation: C, publish: HeldPublish, decision: Decision | undefined) => void
}

/** Of one client: publishes that may wait, and characters of their texts. */
const MOST = 1000
const MOST_CHARACTERS = 1_000_000

export function createHeld<S extends { readonly grant: Grant }, C extends Holding>({ rights, isOpen, hand }: HeldOptions<S, C>) {
  function isKnown({ grant }: S, channel: string): boolean {
    return grant.rights === undefined || grant.rights.has(channel) || !grant.canWrite || !allows(grant, channel)
  }

  function ask(session: S, conversation: C, publish: Waiting): void {
    publish.grant = session.grant
    const { channel } = publish.command
    const asked = isKnown(session, channel) ? undefined : rights.ask(session, channel)
    publish.isDecided = !(asked instanceof Promise)
    publish.decision = asked instanceof Promise ? undefined : asked
    if (asked instanceof Promise)
      void asked.then((decision) => {
        publish.isDecided = true
        publish.decision = decision
        if (isOpen(session)) advance(session, conversation)
      })
  }

  function advance(session: S, conversation: C): void {
    const { held } = conversation
    for (let next = held?.waiting[0]; held && next?.isDecided; next = held.waiting[0]) {
      if (next.grant !== session.grant) {
        // It is asked under the new token.
        ask(session, conversation, next)
        continue
      }
      held.waiting.shift()
      held.characters -= next.command.text.length
      hand(session, conversation, next, next.decision)
    }
    if (held?.waiting.length === 0) conversation.held = undefined
  }

  return {
    /** Whether nobody need be asked whether it may write to a channel. */
    isKnown,
    hold(session: S, conversation: C, publish: HeldPublish): void {
      conversation.held ??= { waiting: [], characters: 0 }
      const { held } = conversation
      const { length } = publish.command.text
      if (held.waiting.length >= MOST || held.characters + length > MOST_CHARACTERS)
        return conversation.publishes.refuse(publish.unanswered, 'BUFFER_FULL')
      const waiting: Waiting = { ...publish, grant: session.grant, isDecided: false, decision: undefined }
      held.waiting.push(waiting)
      held.characters += length
      ask(session, conversation, waiting)
      advance(session, conversation)
    },
  }
}
