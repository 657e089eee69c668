/**
 * Owns the JSON text that PostgreSQL carries: how a client's message is wrapped, and which channel a notification is for. Pure.
 *
 * A notification is joined from `head`, the time stamp and `tail`, so that all but the stamp is made once, when the message is
 * accepted, and the stamp just before it goes to the database.
 */
import { members } from './json.ts'

/** PostgreSQL refuses a notification of this many bytes or more (manual page of NOTIFY). */
export const NOTIFICATION_BYTES = 8000

/** A notification without its time stamp. */
export interface Envelope {
  readonly head: string
  readonly tail: string
  /** UTF-8 bytes of the whole notification, the stamp included. */
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

/** What follows an envelope's payload: the channel, and further members of server events. */
export function envelopeEnd(channel: string, more: Readonly<Record<string, unknown>> = {}): string {
  return `,${JSON.stringify({ channel, ...more }).slice(1)}`
}

/**
 * Wraps a payload.
 *
 * @param payload a JSON text.
 */
export function envelope(head: string, event: string, payload: string, end: string): Envelope {
  const tail = `},"event":"${event}","payload":${payload}${end}`
  return { head, tail, bytes: byteLength(head) + STAMP_BYTES + byteLength(tail) }
}

const byteLength = (text: string): number => Buffer.byteLength(text)

/** The text that PostgreSQL carries. */
export function notificationOf({ head, tail }: Envelope, stamp: number): string {
  const fraction = String(stamp % 1_000_000).padStart(6, '0')
  return `${head}${Math.floor(stamp / 1_000_000)}.${fraction}${tail}`
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

/** The channel that a notification names: the string member `channel` of a JSON object; undefined when it names none. */
export function channelOf(notification: string): string | undefined {
  // Whatever else it is, a text that does not end an object names no channel; most such texts are spared a thrown error.
  if (!/^\s*\{/.test(notification)) return undefined
  try {
    const { channel } = JSON.parse(notification)
    return typeof channel === 'string' ? channel : undefined
  } catch {
    return undefined
  }
}
