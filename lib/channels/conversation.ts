/** Owns what the commands of a client do: subscriptions, publishes, and the renewal of its token. */

import { allows, type Grant } from '../access/grant.ts'
import { type CommandCode, commandCode, isRefusal, type Refusal } from '../refusal.ts'
import { type Answering, createAnswers, type Publishes } from './answers.ts'
import { createBeginnings, isBeginning } from './beginning.ts'
import type { Asked, Broker } from './broker.ts'
import type { Command, CommandEvent, Id, PublishCommand } from './client.ts'
import type { Address, Publisher, Publishing } from './publisher.ts'
import type { Beginning, Readings } from './reading.ts'

/** What is kept of it with a client. */
export interface Conversing extends Answering {
  grant: Grant
  /** Those that it reads. */
  channels: readonly string[]
  /** Undefined for who sends no commands. */
  conversation: Conversation | undefined
}

/** What is kept with a client that sends commands, beside what others have. */
export interface Conversation {
  /** Subscriptions that do not stand yet. */
  joining: readonly Joining[]
  /** Whether a token is being verified. */
  isRenewing: boolean
  readonly publishes: Publishes
  /** Where its last message went. */
  address: Address | undefined
}

interface Joining {
  readonly id: Id
  readonly channel: string
}

export interface Conversations<S> {
  create(session: S): Conversation
  /** The client is there, and reads from this beginning. */
  opened(session: S, beginning: Beginning): void
  /** @param text undefined for bytes that are no text. */
  message(session: S, text: string | undefined): void
  /** The end of its token is near. */
  expiring(session: S): void
  /** The client is gone. */
  closed(session: S): void
}

export interface ConversationsOptions<S> {
  readonly readings: Readings<S>
  readonly publisher: Pick<Publisher<Publishing>, 'on' | 'address'>
  readonly history: Broker['history']
  readonly isKept: (channel: string) => boolean
  /** Subscriptions of one client at most. */
  readonly maxSubscriptions: number
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
  const { readings, publisher, history, handedOn } = options
  const findBeginning = createBeginnings(history)
  const answers = createAnswers({
    handedOn,
    // Only sessions of this kind are given to it.
    overwhelmed: (session) => options.overwhelmed(session as S),
  })

  function write({ client, protocol }: S, event: CommandEvent): void {
    const text = protocol.commands?.write(event)
    if (text === undefined) return
    client.write(text)
    handedOn(Buffer.byteLength(text), 1)
  }

  const refuse = (session: S, id: Id, code: CommandCode): void => write(session, { id, event: 'Refused', code })

  /** Where a reader is that begins there; null where no history is kept. */
  function position(beginning: Beginning): string | null {
    if (history === undefined) return null
    return history.position(typeof beginning === 'number' ? beginning : history.head)
  }

  function beginningOf({ protocol }: S, channel: string, asked: Asked): ReturnType<typeof findBeginning> {
    // Nothing is kept that could lie behind the position.
    if (history === undefined && asked && 'since' in asked) return 'lost'
    return findBeginning(asked, { canRead: true, channels: [channel] }, protocol, true)
  }

  function subscribe(session: S, conversation: Conversation, { id, channel, asked }: Joining & { readonly asked: Asked }): void {
    const { grant, channels } = session
    const fault = readFault(grant, channel)
    if (fault) return refuse(session, id, fault)
    if (isOn(session, channel)) return write(session, { id, event: 'Subscribed', channel, position: position(undefined) })
    if (channels.length + conversation.joining.length >= options.maxSubscriptions)
      return refuse(session, id, 'TOO_MANY_SUBSCRIPTIONS')
    const following = readings.join(session, [channel])
    const beginning = beginningOf(session, channel, asked)
    const joining: Joining = { id, channel }
    conversation.joining = [...conversation.joining, joining]
    if (following === undefined && !(beginning instanceof Promise)) return joined(session, joining, undefined, beginning)
    void Promise.all([following, beginning]).then(([refusals, found]) => joined(session, joining, refusals?.[0], found))
  }

  function joined(session: S, joining: Joining, refusal: Refusal | undefined, found: Beginning | Refusal): void {
    const { conversation } = session
    // It left meanwhile.
    if (!conversation?.joining.includes(joining)) return
    conversation.joining = conversation.joining.filter((other) => other !== joining)
    const { id, channel } = joining
    const isThere = isOn(session, channel)
    const begins = refusal ?? found
    if (isThere || !isBeginning(begins)) readings.leave(session, [channel])
    if (!isBeginning(begins)) return refuse(session, id, commandCode(begins))
    if (!isThere) session.channels = [...session.channels, channel]
    write(session, { id, event: 'Subscribed', channel, position: position(begins) })
    if (!isThere && isOn(session, channel)) readings.begin(session, [channel], begins)
  }

  /** Undoes what does not stand yet. */
  function abandon(session: S, conversation: Conversation, codeOf: (channel: string) => CommandCode | undefined): void {
    for (const joining of conversation.joining) {
      const code = codeOf(joining.channel)
      if (code === undefined || !conversation.joining.includes(joining)) continue
      conversation.joining = conversation.joining.filter((other) => other !== joining)
      readings.leave(session, [joining.channel])
      refuse(session, joining.id, code)
    }
  }

  function leave(session: S, channel: string): void {
    session.channels = session.channels.filter((other) => other !== channel)
    session.client.leave(channel)
    readings.leave(session, [channel])
  }

  function unsubscribe(session: S, conversation: Conversation, { id, channel }: Joining): void {
    const isJoining = conversation.joining.some((joining) => joining.channel === channel)
    abandon(session, conversation, (other) => (other === channel ? 'NOT_SUBSCRIBED' : undefined))
    const isThere = isOn(session, channel)
    if (isThere) leave(session, channel)
    if (isThere || isJoining) write(session, { id, event: 'Unsubscribed', channel })
    else refuse(session, id, 'NOT_SUBSCRIBED')
  }

  function publish({ grant }: S, conversation: Conversation, { id, channel, text, key }: PublishCommand): void {
    const { publishes } = conversation
    const isKept = options.isKept(channel)
    const unanswered = publishes.add(id, channel, isKept)
    if (unanswered === undefined) return
    const fault = publishFault(grant, channel, text)
    if (fault) return publishes.refuse(unanswered, fault)
    options.received(text)
    conversation.address = publisher.address(grant.claims, channel, conversation.address)
    const full = publisher.on(conversation.address, text, key, isKept ? publishes.settled.kept : publishes.settled.others)
    if (full) publishes.refuse(unanswered, full)
  }

  function renew(session: S, conversation: Conversation, id: Id, token: string): void {
    if (conversation.isRenewing) return refuse(session, id, 'TOKEN_UNDER_WAY')
    const granted = options.authorize(token)
    if (!(granted instanceof Promise)) return renewed(session, conversation, id, granted)
    conversation.isRenewing = true
    void granted.then((result) => {
      conversation.isRenewing = false
      if (options.isOpen(session)) renewed(session, conversation, id, result)
    })
  }

  function renewed(session: S, conversation: Conversation, id: Id, granted: Grant | Refusal): void {
    if (isRefusal(granted)) return refuse(session, id, commandCode(granted))
    const earlier = session.grant
    session.grant = granted
    options.renewed(session, earlier)
    write(session, { id, event: 'TokenAccepted', expires: seconds(granted.expiresAt) })
    for (const channel of session.channels) {
      const code = readFault(granted, channel)
      if (code === undefined || !isOn(session, channel)) continue
      leave(session, channel)
      write(session, { event: 'Unsubscribed', channel, code })
    }
    abandon(session, conversation, (channel) => readFault(granted, channel))
  }

  function execute(session: S, conversation: Conversation, command: Command): void {
    switch (command.command) {
      case 'subscribe':
        return subscribe(session, conversation, command)
      case 'unsubscribe':
        return unsubscribe(session, conversation, command)
      case 'publish':
        return publish(session, conversation, command)
      case 'token':
        return renew(session, conversation, command.id, command.token)
      case 'ping':
        return write(session, { id: command.id, event: 'Pong' })
    }
  }

  return {
    create: (session) => ({ joining: [], isRenewing: false, publishes: answers(session), address: undefined }),
    opened(session, beginning) {
      const { mode, expiresAt } = session.grant
      write(session, {
        event: 'Connected',
        mode,
        channels: session.channels,
        expires: seconds(expiresAt),
        position: position(beginning),
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
    closed(session) {
      const { conversation } = session
      if (!conversation) return
      for (const { channel } of conversation.joining) readings.leave(session, [channel])
      conversation.joining = []
    },
  }
}

/** A client that is found to read too slowly, as it is written to, is on no channel any more. */
const isOn = ({ channels }: Conversing, channel: string): boolean => channels.includes(channel)

function readFault(grant: Grant, channel: string): 'MODE_NOT_ALLOWED' | 'CHANNEL_NOT_ALLOWED' | undefined {
  if (!grant.canRead) return 'MODE_NOT_ALLOWED'
  return allows(grant, channel) ? undefined : 'CHANNEL_NOT_ALLOWED'
}

function publishFault(grant: Grant, channel: string, text: string): CommandCode | undefined {
  if (!grant.canWrite) return 'MODE_NOT_ALLOWED'
  if (!allows(grant, channel)) return 'CHANNEL_NOT_ALLOWED'
  return text.includes('\0') || !text.isWellFormed() ? 'NOT_TEXT' : undefined
}

const seconds = (time: number): number | null => (time === Number.POSITIVE_INFINITY ? null : time / 1000)
