/** Owns what the commands of a client do: subscriptions, publishes, and the renewal of its token. */

import { allows, canWrite, type Decision, type Grant, isUndecided } from '../access/grant.ts'
import { type CommandCode, commandCode, isRefusal, type Refusal } from '../refusal.ts'
import { inTick } from '../waiting.ts'
import { type Answering, createAnswers, type Publishes } from './answers.ts'
import type { Command, CommandEvent, Id, PublishCommand } from './client.ts'
import { createHeld, type Held, type HeldPublish } from './held-publishes.ts'
import type { Address, Publisher, Publishing } from './publisher.ts'
import type { Beginning } from './reading.ts'
import { createSubscriptions, type Subscribing, type SubscribingMore, type SubscriptionsOptions } from './subscriptions.ts'

/** What each session keeps for this. */
export interface Conversing extends Answering, Subscribing {
  channels: readonly string[]
  /** Undefined for who sends no commands. */
  conversation: Conversation | undefined
}

/** What is kept with a client that sends commands, beside what others have. */
export interface Conversation extends SubscribingMore {
  /** Whether a token is being verified. */
  isRenewing: boolean
  readonly publishes: Publishes
  /** Publishes that wait for a decision; undefined while there are none. */
  held: Held | undefined
  /** Where its last message went. */
  address: Address | undefined
}

export interface Conversations<S> {
  create(session: S): Conversation
  /** The client is there, and reads from this beginning. */
  opened(session: S, beginning: Beginning): void
  /** @param text undefined for bytes that are no text. */
  message(session: S, text: string | undefined): void
  /** The end of its token is near. */
  expiring(session: S): void
  /** It lost some of its rights. */
  narrow(session: S): void
  /** The client is gone. */
  closed(session: S): void
}

export interface ConversationsOptions<S> extends Omit<SubscriptionsOptions<S>, 'write' | 'refuse'> {
  readonly publisher: Pick<Publisher<Publishing>, 'on' | 'address'>
  readonly isKept: (channel: string) => boolean
  /** What a token allows, before any channel is asked for. */
  readonly authorize: (token: string) => Grant | Refusal | Promise<Grant | Refusal>
  /** It goes on under another grant. */
  readonly renewed: (session: S, earlier: Grant) => void
  /** It publishes a text. */
  readonly received: (text: string) => void
  readonly overwhelmed: (session: S) => void
  readonly isOpen: (session: S) => boolean
  readonly handedOn: (bytes: number, readers: number) => void
}

export function createConversations<S extends Conversing>(options: ConversationsOptions<S>): Conversations<S> {
  const { publisher, handedOn } = options
  const answers = createAnswers<S>({ handedOn, overwhelmed: options.overwhelmed })

  function write({ client, protocol }: S, event: CommandEvent): void {
    const text = protocol.commands?.write(event)
    if (text === undefined) return
    client.write(text)
    handedOn(Buffer.byteLength(text), 1)
  }

  const refuse = (session: S, id: Id, code: CommandCode): void => write(session, { id, event: 'Refused', code })

  const subscriptions = createSubscriptions<S>({ ...options, write, refuse })

  const held = createHeld<S, Conversation>({ rights: options.rights, isOpen: options.isOpen, hand })

  function publish(session: S, conversation: Conversation, command: PublishCommand): void {
    const { id, channel } = command
    const unanswered = conversation.publishes.add(id, channel, options.isKept(channel))
    if (unanswered === undefined) return
    if (!conversation.held && held.isKnown(session, channel)) hand(session, conversation, { command, unanswered }, undefined)
    else held.hold(session, conversation, { command, unanswered })
  }

  /** Hands a publish to the broker. @param decision what came of a question about its channel. */
  function hand(session: S, conversation: Conversation, { command, unanswered }: HeldPublish, decision?: Decision): void {
    const { grant } = session
    const { publishes } = conversation
    const { channel, text, key } = command
    const fault = isUndecided(decision) ? decision : publishFault(grant, channel, text)
    if (fault) return publishes.refuse(unanswered, fault)
    options.received(text)
    conversation.address = publisher.address(grant.claims, channel, conversation.address)
    const full = publisher.on(
      session,
      conversation.address,
      text,
      key,
      unanswered.isKept ? publishes.settled.kept : publishes.settled.others,
    )
    if (full) publishes.refuse(unanswered, full)
  }

  function renew(session: S, conversation: Conversation, id: Id, token: string): void {
    if (conversation.isRenewing) return refuse(session, id, 'TOKEN_UNDER_WAY')
    const granted = inTick(options.authorize(token), (found) => (isRefusal(found) ? found : options.rights.renew(session, found)))
    if (!(granted instanceof Promise)) return renewed(session, id, granted)
    conversation.isRenewing = true
    void granted.then((result) => {
      conversation.isRenewing = false
      if (options.isOpen(session)) renewed(session, id, result)
    })
  }

  function renewed(session: S, id: Id, granted: Grant | Refusal): void {
    if (isRefusal(granted)) return refuse(session, id, commandCode(granted))
    const earlier = session.grant
    session.grant = granted
    write(session, { id, event: 'TokenAccepted', expires: seconds(granted.expiresAt) })
    subscriptions.narrow(session)
    options.renewed(session, earlier)
  }

  function execute(session: S, conversation: Conversation, command: Command): void {
    switch (command.command) {
      case 'subscribe':
        return subscriptions.subscribe(session, command)
      case 'unsubscribe':
        return subscriptions.unsubscribe(session, command)
      case 'publish':
        return publish(session, conversation, command)
      case 'token':
        return renew(session, conversation, command.id, command.token)
      case 'ping':
        return write(session, { id: command.id, event: 'Pong' })
    }
  }

  return {
    create: (session) => ({ joining: [], isRenewing: false, publishes: answers(session), held: undefined, address: undefined }),
    opened(session, beginning) {
      const { mode, expiresAt } = session.grant
      write(session, {
        event: 'Connected',
        mode,
        channels: session.channels,
        expires: seconds(expiresAt),
        position: subscriptions.position(beginning),
      })
    },
    message(session, text) {
      const { conversation, protocol } = session
      if (!conversation || !protocol.commands) return
      if (text === undefined) return refuse(session, undefined, 'NOT_TEXT')
      const command = protocol.commands.read(text)
      if ('event' in command) write(session, command)
      else execute(session, conversation, command)
    },
    expiring: (session) => write(session, { event: 'TokenExpiring', expires: session.grant.expiresAt / 1000 }),
    narrow: subscriptions.narrow,
    closed(session) {
      if (session.conversation) session.conversation.held = undefined
      subscriptions.closed(session)
    },
  }
}

function publishFault(grant: Grant, channel: string, text: string): CommandCode | undefined {
  if (!grant.canWrite) return 'MODE_NOT_ALLOWED'
  if (!allows(grant, channel) || grant.rights?.has(channel) === false) return 'CHANNEL_NOT_ALLOWED'
  if (!canWrite(grant, channel)) return 'MODE_NOT_ALLOWED'
  return text.includes('\0') || !text.isWellFormed() ? 'NOT_TEXT' : undefined
}

const seconds = (time: number): number | null => (time === Number.POSITIVE_INFINITY ? null : time / 1000)
