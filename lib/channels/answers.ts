/**
 * Owns the answers to a client's publishes: they come in the order of the publishes, whatever became of each, and those of one tick go out
 * together.
 */

import { type ClosureCode, type CommandCode, UNANSWERED_PUBLISHES } from '../refusal.ts'
import type { Outcome, Rejection } from './broker.ts'
import type { Client, Id, Protocol } from './client.ts'

/** What each session keeps for this. */
export interface Answering {
  readonly client: Client
  readonly protocol: Protocol
  closure: ClosureCode | undefined
}

/** A publish without an answer. */
export interface Unanswered {
  readonly id: Id
  readonly channel: string
  readonly isKept: boolean
  /** What became of it, while its answer waits for those ahead of it. */
  outcome: 'published' | CommandCode | Rejection | undefined
}

/** The publishes of a client. */
export interface Publishes {
  /** @param isKept whether the channel's messages are. @returns undefined where there are too many, and it is refused. */
  add(id: Id, channel: string, isKept: boolean): Unanswered | undefined
  /** Refuses one that the broker was not given. */
  refuse(publish: Unanswered, code: CommandCode): void
  /** The broker settled the first, of kept messages or of the others, that it has not settled yet: each kind keeps its order. */
  readonly settled: { readonly kept: Settled; readonly others: Settled }
}

type Settled = (outcome: Outcome) => void

export interface AnswersOptions<S> {
  /** To be told the bytes of what was written to a reader. */
  readonly handedOn: (bytes: number, readers: number) => void
  /** Sends so much that even its refusals cannot all be kept. */
  readonly overwhelmed: (session: S) => void
}

/** Entries from which on the answered ones are cut off, so that an array is not moved for each. */
const CUT = 1024

/** @returns makes the publishes of one client. */
export function createAnswers<S extends Answering>({ handedOn, overwhelmed }: AnswersOptions<S>): (session: S) => Publishes {
  /** Answers of this tick, by client. */
  const due = new Map<S, string[]>()

  function flush(): void {
    for (const [session, texts] of due) {
      if (session.closure !== undefined) continue
      session.client.writeAll(texts)
      for (const text of texts) handedOn(Buffer.byteLength(text), 1)
    }
    due.clear()
  }

  function write(session: S, text: string): void {
    if (due.size === 0) queueMicrotask(flush)
    const texts = due.get(session)
    if (texts) texts.push(text)
    else due.set(session, [text])
  }

  /** A refusal that waits for nothing comes at once, as that of any command. */
  function writeNow(session: S, text: string): void {
    if (due.has(session)) return write(session, text)
    session.client.write(text)
    handedOn(Buffer.byteLength(text), 1)
  }

  return (session) => {
    const { commands } = session.protocol
    const waiting: Unanswered[] = []
    /** How many at the beginning are answered. */
    let answered = 0

    function answer({ id, channel, outcome }: Unanswered, put: typeof write): void {
      answered++
      if (!commands || outcome === undefined) return
      if (outcome === 'published') put(session, commands.write({ id, event: 'Published', channel }))
      else if (typeof outcome === 'string') put(session, commands.write({ id, event: 'Refused', code: outcome }))
      else put(session, commands.write({ id, event: 'Refused', code: outcome.code, reason: outcome.reason }))
    }

    function advance(put: typeof write): void {
      for (let next = waiting[answered]; next?.outcome !== undefined; next = waiting[answered]) answer(next, put)
      if (answered <= CUT && answered < waiting.length) return
      if (answered <= waiting.length / 2) return
      waiting.splice(0, answered)
      kept.cut(answered)
      others.cut(answered)
      answered = 0
    }

    /** The broker settles kept messages, and others, in the order of each. */
    function settler(isKept: boolean) {
      /** Where the first lies that is not settled yet, or ahead of it. */
      let at = 0
      return {
        cut(count: number): void {
          at = Math.max(0, at - count)
        },
        settled(outcome: Outcome): void {
          while (waiting[at] && (waiting[at]?.isKept !== isKept || waiting[at]?.outcome !== undefined)) at++
          const first = waiting[at]
          if (first === undefined) return
          first.outcome = outcome === 'committed' ? 'published' : 'rejected' in outcome ? outcome : 'REFUSED_BY_DATABASE'
          advance(write)
        },
      }
    }

    const kept = settler(true)
    const others = settler(false)

    function refuse(publish: Unanswered, code: CommandCode): void {
      publish.outcome = code
      advance(writeNow)
    }

    return {
      add(id, channel, isKept) {
        const publish: Unanswered = { id, channel, isKept, outcome: undefined }
        const count = waiting.push(publish) - answered
        if (count <= UNANSWERED_PUBLISHES) return publish
        if (count > 2 * UNANSWERED_PUBLISHES) overwhelmed(session)
        refuse(publish, 'TOO_MANY_UNANSWERED')
        return undefined
      },
      refuse,
      settled: { kept: kept.settled, others: others.settled },
    }
  }
}
