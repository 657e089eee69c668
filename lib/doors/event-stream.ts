/** Owns clients that are event streams: how a text is framed as an event, how streams are written to, and how they end. */

import type { Client, CommandEvent, Form, Protocol } from '../channels/client.ts'
import type { End } from '../channels/client-log.ts'
import type { Session, Sessions } from '../channels/session.ts'
import type { ClosureCode } from '../refusal.ts'
import type { Sink, StreamSource } from '../runtime/contract.ts'
import { jsonCommands, jsonMessage } from './command.ts'

type ClosableSessions = Pick<Sessions, 'open' | 'discard' | 'closed'>

export interface EventStreams {
  /** Messages as they are, and events of the server by their names. */
  readonly events: StreamKind
  /** All of it as the objects of `pgws.json`, for streams of several channels. */
  readonly objects: StreamKind
}

export interface StreamKind {
  readonly protocol: Protocol
  /** The stream of a session, which is open as soon as the stream is. */
  open(session: Session, sessions: ClosableSessions): StreamSource
}

/** A message as an event: a line of data for each of its lines, however they end. */
export function messageEvent(text: string, position: string | undefined): string {
  const id = position === undefined ? '' : `id: ${position}\n`
  return `${id}data: ${text.replaceAll(/\r\n|\r|\n/g, '\ndata: ')}\n\n`
}

/** An id without data is no event: a reader keeps it, to come back with (HTML section 9.2.6). */
const positionOnly = (position: string): string => `id: ${position}\n\n`

/** An event of the server itself. */
export const namedEvent = (name: string, data: object): string => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`

/** Milliseconds after which a client is to come again. */
const retryAfter = (milliseconds: number): string => `retry: ${milliseconds}\n\n`

const COME_AGAIN = 1000

/** When all streams end at once, their clients are to come again between these milliseconds, at random. */
const SPREAD = { least: 1000, most: 5000 }

const utf8 = new TextEncoder()

const FIRST = utf8.encode(retryAfter(COME_AGAIN))

/** Shows that the stream is alive. */
const COMMENT = utf8.encode(':\n\n')

/** Texts that are published in one tick go out in pieces of about so many characters. */
const PIECE_LENGTH = 65_536

/** How an event of the server reads. */
type Say = (name: string, data: object) => string

/** What is said ahead of the end. */
function lastWords(closure: ClosureCode, reason: string, expiresAt: number, say: Say): string {
  if (closure === 'DISCONNECTED') return say('Disconnected', { reason })
  if (closure === 'EXPIRED') return say('TokenExpired', { expires: expiresAt / 1000 })
  if (closure === 'ACCESS_WITHDRAWN') return say('AccessWithdrawn', {})
  if (closure === 'SHUTDOWN') return retryAfter(Math.round(SPREAD.least + Math.random() * (SPREAD.most - SPREAD.least)))
  return `: ${reason}\n\n`
}

export const createEventStreams = (): EventStreams => ({
  events: createKind((_, text, position) => messageEvent(text, position), namedEvent, {
    begins: positionOnly,
    commands: undefined,
  }),
  objects: createKind(
    (channel, text, position) => messageEvent(jsonMessage(channel, text, position), position),
    sayObject,
    // Nobody sends commands here. That they could be makes the session speak of itself.
    { commands: { ...jsonCommands, write: (event) => messageEvent(jsonCommands.write(event), positionIn(event)) } },
  ),
})

const sayObject: Say = (event, data) => messageEvent(JSON.stringify({ event, ...data }), undefined)

const positionIn = (event: CommandEvent): string | undefined => ('position' in event ? event.position : null) ?? undefined

/** Streams that share one form: what they all get is encoded once. */
function createKind(render: Form['render'], say: Say, more: Pick<Protocol, 'begins' | 'commands'>): StreamKind {
  const readers = new Map<string, Set<EventStream>>()
  /** What was published in this tick and is not handed on yet, all of it on one channel. */
  let pending = ''
  let pendingChannel = ''

  /** One write for all that came in one read costs a stream hardly more than one for a single text. */
  function handOn(): void {
    if (pending === '') return
    const bytes = utf8.encode(pending)
    pending = ''
    for (const stream of readers.get(pendingChannel) ?? []) stream.enqueue(bytes)
  }

  const form: Form = {
    render,
    topic: (channel) => channel,
    publish(channel, rendered) {
      if (channel !== pendingChannel || pending.length > PIECE_LENGTH) handOn()
      if (pending === '') queueMicrotask(handOn)
      pendingChannel = channel
      pending += rendered
    },
  }
  const topics: Topics = {
    say,
    handOn,
    add(channel, stream) {
      handOn()
      const streams = readers.get(channel)
      if (streams) streams.add(stream)
      else readers.set(channel, new Set([stream]))
    },
    remove(channel, stream) {
      handOn()
      const streams = readers.get(channel)
      if (streams?.delete(stream) && streams.size === 0) readers.delete(channel)
    },
  }
  return {
    protocol: { name: 'sse', form, tell: ({ event, ...data }) => say(event, data), ...more },
    open: (session, sessions) => new EventStream(topics, session, sessions),
  }
}

/** What the streams of a kind have in common. */
interface Topics {
  readonly say: Say
  /** What was published so far goes ahead of what is written next. */
  handOn(): void
  add(channel: string, stream: EventStream): void
  remove(channel: string, stream: EventStream): void
}

/** A class, for ten thousand streams share its functions. */
class EventStream implements Client, StreamSource {
  private sink: Sink | undefined

  constructor(
    private readonly topics: Topics,
    private readonly session: Session,
    private readonly sessions: ClosableSessions,
  ) {}

  opened(sink: Sink): void {
    this.sink = sink
    this.enqueue(FIRST)
    this.sessions.open(this.session, this)
  }

  gone(): void {
    if (this.sink) this.over(GONE)
    else this.sessions.discard(this.session)
  }

  enqueue(bytes: Uint8Array<ArrayBuffer>): void {
    this.sink?.write(bytes)
  }

  waiting(): number {
    return this.sink?.waiting() ?? 0
  }

  write(text: string): void {
    this.topics.handOn()
    this.enqueue(utf8.encode(text))
  }

  writeAll(texts: readonly string[]): void {
    this.write(texts.join(''))
  }

  join(channel: string): void {
    this.topics.add(channel, this)
  }

  leave(channel: string): void {
    this.topics.remove(channel, this)
  }

  ping(): boolean {
    this.enqueue(COMMENT)
    return false
  }

  end(closure: ClosureCode, { reason }: End): void {
    this.write(lastWords(closure, reason, this.session.grant.expiresAt, this.topics.say))
    this.sink?.end()
    this.over(DROPPED)
  }

  drop(): void {
    this.sink?.drop()
    this.over(DROPPED)
  }

  private over(code: number): void {
    if (this.sink === undefined) return
    this.sink = undefined
    for (const channel of this.session.channels) this.topics.remove(channel, this)
    // Whoever ends it may be in the midst of what its session is part of.
    queueMicrotask(() => this.sessions.closed(this.session, code, ''))
  }
}

/** In the terms of RFC 6455 section 7.4.1: ended without a code, for event streams have none; and ended without a word. */
const GONE = 1005
const DROPPED = 1006
