/** Owns the port to clients. Types only: each kind of client is one file in `lib/doors`. */
import type { Grant } from '../access/grant.ts'
import type { ClosureCode, CommandCode } from '../refusal.ts'
import type { Asked } from './broker.ts'
import type { End } from './client-log.ts'

/** Somebody whom text can be written to and who can be ended. */
export interface Client {
  /** Bytes that are buffered for it in the program. */
  waiting(): number
  /** Writes a text to this client alone. */
  write(text: string): void
  /** Writes texts one after the other, in as few packets as they need. */
  writeAll(texts: readonly string[]): void
  /** From now on, the client gets what its form publishes on the channel. */
  join(channel: string): void
  leave(channel: string): void
  /** Pings the client. @returns whether it will answer. */
  ping(): boolean
  /** Closes it after everything that is buffered, and says why. @param said what a close frame says. */
  end(closure: ClosureCode, said: End): void
  /** Drops it at once, without a close frame. */
  drop(): void
}

/** The format of messages for some clients. A message is rendered and published once for each form, however many clients read it. */
export interface Form {
  /**
   * A message of a channel, as these clients get it.
   *
   * @param position where it stands in the history of channels; undefined where that is not kept.
   */
  render(channel: string, text: string, position: string | undefined): string
  /** What the clients of this form that joined the channel are reached by. Asked for once, and not for each message. */
  topic(channel: string): string
  /** Hands a rendered text to every client of this form that joined the channel of the topic. */
  publish(topic: string, rendered: string): void
}

/** The subprotocol that a client uses. */
export interface Protocol {
  readonly name: 'plain' | 'pgws' | 'pgws.json' | 'sse'
  readonly form: Form
  /** The text that says what may have been missed; undefined where such clients know no such thing. */
  readonly tell: ((event: ServerEvent) => string) | undefined
  /** The text that says where in the history of channels a reader begins; absent where such clients are told with something else, or not. */
  readonly begins?: (position: string) => string
  /** For clients that send commands; undefined where what a client sends is published as it is. */
  readonly commands: Commands | undefined
}

export interface Commands {
  /** @returns why it is none, where it is none. */
  read(text: string): Command | RefusedEvent
  write(event: CommandEvent): string
}

/** What the answer to a command repeats; undefined where the command had none. */
export type Id = number | string | undefined

export type Command =
  | SubscribeCommand
  | { readonly command: 'unsubscribe'; readonly id: Id; readonly channel: string }
  | PublishCommand
  | { readonly command: 'token'; readonly id: Id; readonly token: string }
  | { readonly command: 'ping'; readonly id: Id }

export interface SubscribeCommand {
  readonly command: 'subscribe'
  readonly id: Id
  readonly channel: string
  readonly asked: Asked
}

export interface PublishCommand {
  readonly command: 'publish'
  readonly id: Id
  readonly channel: string
  readonly text: string
  /** Of two messages with the same key, one is published, where history is kept. */
  readonly key: string | undefined
}

export interface RefusedEvent {
  readonly id: Id
  readonly event: 'Refused'
  readonly code: CommandCode
}

/** A message was refused by what handles it, which says why. */
export interface RejectedEvent {
  readonly id: Id
  readonly event: 'Refused'
  readonly code: string
  readonly reason: string
}

/** What a client that sends commands is told. Times in seconds of UNIX time, null for never. */
export type CommandEvent =
  | {
      readonly event: 'Connected'
      readonly mode: Grant['mode']
      readonly channels: readonly string[]
      readonly expires: number | null
      readonly position: string | null
    }
  | { readonly id: Id; readonly event: 'Subscribed'; readonly channel: string; readonly position: string | null }
  /** @property code why, where the client did not ask for it. */
  | { readonly id?: Id; readonly event: 'Unsubscribed'; readonly channel: string; readonly code?: CommandCode }
  | { readonly id: Id; readonly event: 'Published'; readonly channel: string }
  | { readonly id: Id; readonly event: 'TokenAccepted'; readonly expires: number | null }
  | { readonly event: 'TokenExpiring'; readonly expires: number }
  | { readonly id: Id; readonly event: 'Pong' }
  | RefusedEvent
  | RejectedEvent

export type ServerEvent = MissedEvent | MessageRefusedEvent

/** What handles messages refused one of this client. */
interface MessageRefusedEvent {
  readonly event: 'MessageRefused'
  readonly channel: string
  readonly code: string
  readonly reason: string
}

/** Times in seconds of UNIX time. */
interface MissedEvent {
  readonly event: 'MessagesMissed'
  readonly channel: string
  /** Null where it is not known. */
  readonly from: number | null
  readonly to: number
}
