/**
 * Owns the JSON text that PostgreSQL carries: how a client's message is wrapped, and which channel a notification is for. Pure.
 *
 * A notification is `head`, a time stamp and `tail`. Head and tail are made once, when the message is accepted. The stamp is made just
 * before the message goes to the database.
 */
import { NOTIFICATION_BYTES } from '../refusal.ts'
import { members } from './json.ts'

/** The constant text around the payload of every message that one client sends to one channel. */
export interface Frame {
  readonly channel: string
  /** Up to the time stamp. */
  readonly head: string
  /** From behind the stamp up to the payload. */
  readonly middle: string
  /** From behind the payload. */
  readonly end: string
  /** UTF-8 bytes of all but the payload. */
  readonly bytes: number
}

/** A notification without its time stamp. */
export interface Envelope {
  readonly channel: string
  /** Of two envelopes of a channel with the same key, one is published, where history is kept. */
  readonly key?: string | undefined
  readonly head: string
  readonly tail: string
  /** UTF-8 bytes of the whole notification with its stamp. Never too few, and exact near NOTIFY's limit. */
  readonly bytes: number
}

const STAMP_BYTES = '1767225600.000000'.length
const STAMP_CLAIM = 'message_delivered_at'

/**
 * What an envelope begins with: the claims as they stand in the token, up to the time stamp.
 *
 * @param claims a JSON object; a claim of its own that has the stamp's name gives way to the stamp.
 * @param only the claims to forward; undefined forwards all.
 */
export function envelopeHead(claims: string, only?: readonly string[]): string {
  const forwarded = [...members(claims)].filter(([name]) => name !== STAMP_CLAIM && (only?.includes(name) ?? true))
  const texts = forwarded.map(([name, value]) => `${JSON.stringify(name)}:${value},`)
  return `{"claims":{${texts.join('')}"${STAMP_CLAIM}":`
}

/** @param more further members of a server event. */
export function envelopeFrame(head: string, event: string, channel: string, more: Readonly<Record<string, unknown>> = {}): Frame {
  const middle = `},"event":"${event}","payload":`
  const end = `,${JSON.stringify({ channel, ...more }).slice(1)}`
  return { channel, head, middle, end, bytes: Buffer.byteLength(head) + STAMP_BYTES + middle.length + Buffer.byteLength(end) }
}

/** The frames of a client's messages, one for each of its channels. */
export function envelopeFrames(claims: string, channels: readonly string[], only?: readonly string[]): readonly Frame[] {
  const head = envelopeHead(claims, only)
  return channels.map((channel) => envelopeFrame(head, 'WebsocketMessage', channel))
}

/** The most bytes of UTF-8 that a unit of UTF-16 takes. */
const UNIT_BYTES = 3

/**
 * Wraps a payload.
 *
 * @param payload a JSON text.
 */
export function envelope({ channel, head, middle, end, bytes }: Frame, payload: string): Envelope {
  const most = bytes + UNIT_BYTES * payload.length
  return {
    channel,
    head,
    tail: middle + payload + end,
    // Counting bytes costs more than everything else here, and short messages are far from the limit.
    bytes: most < NOTIFICATION_BYTES ? most : bytes + Buffer.byteLength(payload),
  }
}

/** The text that PostgreSQL carries. */
export function notificationOf({ head, tail }: Pick<Envelope, 'head' | 'tail'>, stamp: number): string {
  const digits = String(stamp)
  return `${head}${digits.slice(0, -6)}.${digits.slice(-6)}${tail}`
}

/**
 * The stamp that follows another, in microseconds of UNIX time: the present, or a microsecond later than the one before, for
 * PostgreSQL folds identical notifications of one transaction into one.
 *
 * @param now UNIX time in milliseconds.
 */
export function nextStamp(previous: number, now: number): number {
  return Math.max(previous + 1, Math.floor(now * 1000))
}

const BRACE = '{'.charCodeAt(0)

/** The channel that a notification names: the string member `channel` of a JSON object; undefined when it names none. */
export function channelOf(notification: string): string | undefined {
  // Text that does not begin like an object need not cost a thrown error.
  if (notification.charCodeAt(0) !== BRACE && !/^\s*\{/.test(notification)) return undefined
  try {
    const { channel } = JSON.parse(notification)
    return typeof channel === 'string' ? channel : undefined
  } catch {
    return undefined
  }
}
