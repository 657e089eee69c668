/**
 * Owns the check that no reader misses a message without a word: senders number their messages, and each reader's view is held against
 * that. Told counts only what came ahead of the first message behind the gap.
 */

export interface Ledger {
  /** A sender's next payload, `NAME:NUMBER`. */
  next(sender: string): string
  /** Whatever the sender has sent so far was accepted, so that every reader is to see its end. */
  settle(sender: string): void
  /** Messages sent by all senders. */
  sent(): number
  /** The view of a reader that is connected now. */
  view(): View
}

export interface View {
  receive(text: string): void
  /** Whether it has seen the end of every sender that was settled, or was told that it may have missed it and nothing comes any more. */
  isWhole(): boolean
  /** Holds what was seen against what was sent. @param isDue whether it is to have seen every end. */
  result(isDue: boolean): Result
}

export interface Result {
  readonly delivered: number
  /** Copies, identical to the first. */
  readonly duplicated: number
  /** Messages that the reader was told it may have missed. */
  readonly told: number
  /** Messages that it missed without a word. */
  readonly lost: readonly string[]
  /** Copies that differ from the first. */
  readonly changed: readonly string[]
}

interface Seen {
  readonly number: number
  /** Not seen: what had been sent when the reader came. */
  readonly isBase: boolean
}

/** Messages of a sender that were skipped. */
interface Gap {
  readonly sender: string
  readonly after: number
  readonly count: number
  /** When it was seen, UNIX time in milliseconds. */
  readonly at: number
}

/** Milliseconds without a message after which none is on its way. */
const QUIET = 2000

export function createLedger(): Ledger {
  /** When each message of a sender was sent, UNIX time in milliseconds. */
  const times = new Map<string, number[]>()
  const settled = new Map<string, number>()
  const texts = new Map<string, string>()

  function view(): View {
    const openedAt = Date.now()
    const seen = new Map<string, Seen>([...times].map(([name, { length }]) => [name, { number: length - 1, isBase: true }]))
    const windows: { from: number; to: number }[] = []
    const lost: string[] = []
    const changed: string[] = []
    let delivered = 0
    let receivedAt = openedAt
    let duplicated = 0
    let told = 0

    const lastOf = (sender: string): Seen => seen.get(sender) ?? { number: -1, isBase: true }

    /** Whether a window that the reader was told of, so far, can hold the gap. */
    const isTold = ({ sender, after, at }: Gap): boolean =>
      windows.some(({ from, to }) => from <= at && to >= (times.get(sender)?.[after + 1] ?? at))

    const missing = (): Gap[] =>
      [...settled]
        .map(([sender, end]) => ({ sender, after: lastOf(sender).number, count: end - lastOf(sender).number, at: Date.now() }))
        .filter(({ count }) => count > 0)

    function judge(gap: Gap): void {
      if (isTold(gap)) told += gap.count
      else {
        const { sender, after, count, at } = gap
        const heard = windows.map(({ from, to }) => `${from} to ${to}`).join(', ')
        lost.push(
          `${count} of ${sender} after ${after}, sent from ${times.get(sender)?.[after + 1]}, seen at ${at} by a reader since ${openedAt} that was told of ${heard || 'nothing'}`,
        )
      }
    }

    return {
      receive(text) {
        const message = JSON.parse(text)
        if (message.event === 'MessagesMissed') {
          windows.push({ from: Math.round(message.from * 1000), to: Math.round(message.to * 1000) })
        }
        const [, sender, digits] = /^(\S+):(\d+)$/.exec(String(message.payload)) ?? []
        // What a sender of an earlier ledger left on its way is not this one's.
        if (sender === undefined || !times.has(sender)) return
        delivered++
        receivedAt = Date.now()
        const number = Number(digits)
        if ((texts.get(message.payload) ?? text) !== text) changed.push(text)
        texts.set(message.payload, text)
        const last = lastOf(sender)
        if (number > last.number + 1) judge({ sender, after: last.number, count: number - last.number - 1, at: receivedAt })
        if (number <= last.number && !last.isBase) duplicated++
        else seen.set(sender, { number, isBase: false })
      },
      isWhole: () => missing().every((gap) => Date.now() - receivedAt > QUIET && isTold(gap)),
      result(isDue) {
        if (isDue) missing().forEach(judge)
        return { delivered, duplicated, told, lost, changed }
      },
    }
  }

  return {
    next(sender) {
      const sent = times.get(sender) ?? []
      times.set(sender, sent)
      return `${sender}:${sent.push(Date.now()) - 1}`
    },
    settle(sender) {
      settled.set(sender, (times.get(sender)?.length ?? 0) - 1)
    },
    sent: () => [...times.values()].reduce((sum, { length }) => sum + length, 0),
    view,
  }
}
