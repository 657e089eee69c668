/** Owns the JSON of the subprotocol `pgws.json`: which texts are commands, and how events and messages read. Pure. */

import { MOST_LAST } from '../channels/beginning.ts'
import type { Asked } from '../channels/broker.ts'
import type { Command, Commands, Id, RefusedEvent } from '../channels/client.ts'
import { type CommandCode, refusals } from '../refusal.ts'

/** Most characters of an `id` that is a string: the server keeps it until the answer. */
const ID_LENGTH = 128

/** Most bytes of a channel's name: the server keeps that of a subscription. */
const CHANNEL_BYTES = 1024

/** Most characters of a token and of a position: as much as a request may carry in its headers. */
const TOKEN_LENGTH = 16_384

/** Most characters of an `Idempotency-Key`. */
const KEY_LENGTH = 256

/** An epoch and a number. */
const POSITION = /^[\w.:]{1,128}-\d{1,20}$/

export const jsonCommands: Commands = {
  read(text) {
    const members = parseObject(text)
    if (members === undefined) return refused(undefined, 'COMMAND_MALFORMED')
    const id = readId(members.id)
    return id === MALFORMED ? refused(undefined, 'COMMAND_MALFORMED') : readCommand(id, members)
  },
  write: (event) =>
    JSON.stringify(event.event === 'Refused' && !('reason' in event) ? { ...event, reason: refusals[event.code].reason } : event),
}

/** A message of a channel. */
export function jsonMessage(channel: string, text: string, position: string | undefined): string {
  const end = position === undefined ? '}' : `,"position":${JSON.stringify(position)}}`
  return `{"event":"Message","channel":${JSON.stringify(channel)},"text":${JSON.stringify(text)}${end}`
}

const MALFORMED = Symbol('malformed')

const refused = (id: Id, code: CommandCode): RefusedEvent => ({ id, event: 'Refused', code })

type Members = Readonly<Record<string, unknown>>

function parseObject(text: string): Members | undefined {
  try {
    const value: unknown = JSON.parse(text)
    // An object that is no array has string keys.
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Members) : undefined
  } catch {
    return undefined
  }
}

/** A number must come back as it was sent, so an integer that JavaScript would round is none. */
function readId(value: unknown): Id | typeof MALFORMED {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return value.length <= ID_LENGTH ? value : MALFORMED
  if (typeof value !== 'number' || !Number.isFinite(value)) return MALFORMED
  return Number.isSafeInteger(value) || !Number.isInteger(value) ? value : MALFORMED
}

function readCommand(id: Id, { command, channel, text, token, key, since, last }: Members): Command | RefusedEvent {
  const malformed = refused(id, 'COMMAND_MALFORMED')
  switch (command) {
    case 'ping':
      return { id, command }
    case 'token':
      if (typeof token !== 'string') return malformed
      return token.length <= TOKEN_LENGTH ? { id, command, token } : refused(id, 'TOKEN_MALFORMED')
    case 'subscribe': {
      if (!isChannel(channel)) return malformed
      const asked = readAsked(since, last)
      return typeof asked === 'string' ? refused(id, asked) : { id, command, channel, asked }
    }
    case 'unsubscribe':
      return isChannel(channel) ? { id, command, channel } : malformed
    case 'publish':
      if (!isChannel(channel) || typeof text !== 'string') return malformed
      return isKey(key) ? { id, command, channel, text, key: key || undefined } : malformed
    default:
      return typeof command === 'string' ? refused(id, 'COMMAND_UNKNOWN') : malformed
  }
}

/** All lone surrogates are one character in UTF-8, and so would be one channel. */
const isChannel = (value: unknown): value is string =>
  typeof value === 'string' && value !== '' && value.isWellFormed() && Buffer.byteLength(value) <= CHANNEL_BYTES

/** A key goes into the database, which takes no NUL and no half of a character. */
const isKey = (value: unknown): value is string | null | undefined =>
  value === undefined ||
  value === null ||
  (typeof value === 'string' && value.length <= KEY_LENGTH && !value.includes('\0') && value.isWellFormed())

/** Empty and null are as good as absent. */
function readAsked(since: unknown, last: unknown): Asked | 'COMMAND_MALFORMED' | 'POSITION_MALFORMED' {
  const hasSince = since !== undefined && since !== null && since !== ''
  const hasLast = last !== undefined && last !== null && last !== ''
  if (hasSince && hasLast) return 'COMMAND_MALFORMED'
  if (hasSince) return typeof since === 'string' && POSITION.test(since) ? { since } : 'POSITION_MALFORMED'
  if (!hasLast) return undefined
  return typeof last === 'number' && Number.isInteger(last) && last >= 1 && last <= MOST_LAST ? { last } : 'COMMAND_MALFORMED'
}
