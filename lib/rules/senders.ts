/**
 * Owns the messages that wait for the function, a line for each sender: in which order they are taken, and their bound.
 *
 * A line is out with one batch at a time, so that each sender's messages keep their order. Lines take turns, so that one who sends
 * much keeps nobody waiting.
 */

import type { Outcome } from '../channels/broker.ts'
import type { Frame } from '../channels/envelope.ts'
import type { Sender } from '../channels/handler.ts'
import { BUFFER_BYTES, BUFFERED_MESSAGE_BYTES } from '../refusal.ts'

export interface Message {
  readonly line: Line
  readonly claims: string
  readonly role: string | undefined
  readonly frame: Frame
  readonly text: string
  readonly key: string | undefined
  readonly settled: (outcome: Outcome) => void
  readonly bytes: number
  /** By the clock that never goes back, in milliseconds. */
  readonly acceptedAt: number
  /** Made when it is first taken. */
  id: string
  stamp: string
}

/** The messages of one sender. */
interface Line {
  readonly sender: Sender
  readonly messages: Message[]
  /** How many of its messages are out with a batch. */
  out: number
}

export interface Senders {
  /** Messages that are neither committed nor refused, and what they take of the bound. */
  readonly length: number
  readonly bytes: number
  /** Messages that a batch may take now, and those with them whose role is another. */
  readonly ready: number
  /** @returns false when there is no room for them. */
  add(sender: Sender, frames: readonly Frame[], text: string, key: string | undefined, settled: Message['settled']): boolean
  /** The next batch, whose messages are all of one role; empty where none is ready. @param most messages at most. */
  take(most: number): readonly Message[]
  /** Puts messages of a batch, the last ones of each of their senders, back to where they were. */
  giveBack(messages: readonly Message[]): void
  /** Messages of a batch are committed or refused. */
  settle(messages: readonly Message[]): void
}

/** What the messages of a batch may come to, in characters, and the last beyond that. */
const BATCH_LENGTH = 4 * 1024 * 1024

type Role = string | undefined

export function createSenders(): Senders {
  const lines = new Map<Sender, Line>()
  /** Lines that are not out, by the role of their first message. Roles, and the lines of each, take turns. */
  const turns = new Map<Role, Set<Line>>()
  let length = 0
  let bytes = 0
  let ready = 0

  function queue(line: Line): void {
    ready += line.messages.length
    const role = line.messages[0]?.role
    const set = turns.get(role)
    if (set) set.add(line)
    else turns.set(role, new Set([line]))
  }

  function lineOf(sender: Sender): Line {
    const known = lines.get(sender)
    if (known) return known
    const line: Line = { sender, messages: [], out: 0 }
    lines.set(sender, line)
    return line
  }

  /** Its messages that were out are back or settled: it takes its turn, or is gone. */
  function returned(line: Line): void {
    if (line.out > 0) return
    if (line.messages.length > 0) queue(line)
    else lines.delete(line.sender)
  }

  return {
    get length() {
      return length
    },
    get bytes() {
      return bytes
    },
    get ready() {
      return ready
    },
    add(sender, frames, text, key, settled) {
      const { claims, role } = sender.grant
      const cost = claims.length + text.length + BUFFERED_MESSAGE_BYTES
      if (bytes + frames.length * cost > BUFFER_BYTES) return false
      const line = lineOf(sender)
      const acceptedAt = performance.now()
      for (const frame of frames)
        line.messages.push({ line, claims, role, frame, text, key, settled, bytes: cost, acceptedAt, id: '', stamp: '' })
      length += frames.length
      bytes += frames.length * cost
      if (line.out > 0) return true
      if (line.messages.length === frames.length) queue(line)
      else ready += frames.length
      return true
    },
    take(most) {
      const batch: Message[] = []
      const [turn] = turns
      if (turn === undefined) return batch
      const [role, set] = turn
      for (let size = 0; batch.length < most && size < BATCH_LENGTH; ) {
        const [line] = set
        if (line === undefined) break
        set.delete(line)
        ready -= line.messages.length
        let count = 0
        for (const message of line.messages) {
          if (message.role !== role || batch.length >= most || size >= BATCH_LENGTH) break
          batch.push(message)
          size += message.text.length
          count++
        }
        line.messages.splice(0, count)
        line.out += count
      }
      turns.delete(role)
      if (set.size > 0) turns.set(role, set)
      return batch
    },
    giveBack(messages) {
      for (const message of messages.toReversed()) {
        message.line.messages.unshift(message)
        message.line.out--
      }
      for (const line of new Set(messages.map((message) => message.line))) returned(line)
    },
    settle(messages) {
      for (const { line, bytes: cost } of messages) {
        length--
        bytes -= cost
        if (--line.out === 0) returned(line)
      }
    },
  }
}
