/** Owns the check that no reader misses a message without a word: senders number their messages, and each reader's view is held against that. */

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
  /** UNIX time in milliseconds. */
  readonly at: number
  /** Not seen: what had been sent when the reader came. */
  readonly isBase: boolean
}

interface Gap {
  readonly sender: string
  readonly after: Seen
  readonly count: number
  readonly until: number
}

/** Milliseconds by which what a reader sees may be later than the times that the server tells. */
const LAG = 500

/** Milliseconds without a message after which none is on its way. */
const QUIET = 2000

export function createLedger(): Ledger {
  const sent = new Map<string, number>()
  const settled = new Map<string, number>()
  const texts = new Map<string, string>()

  function view(): View {
    const openedAt = Date.now()
    const seen = new Map<string, Seen>(
      [...sent].map(([name, count]) => [name, { number: count - 1, at: openedAt, isBase: true }]),
    )
    const gaps: Gap[] = []
    const windows: { from: number; to: number }[] = []
    const changed: string[] = []
    let delivered = 0
    let receivedAt = openedAt
    let duplicated = 0

    const lastOf = (sender: string): Seen => seen.get(sender) ?? { number: -1, at: openedAt, isBase: true }
    const isTold = ({ after, until }: Gap): boolean => windows.some(({ from, to }) => from <= until + LAG && to >= after.at - LAG)

    const missing = (): Gap[] =>
      [...settled]
        .map(([sender, end]) => ({ sender, after: lastOf(sender), count: end - lastOf(sender).number, until: Date.now() }))
        .filter(({ count }) => count > 0)

    return {
      receive(text) {
        const message = JSON.parse(text)
        if (message.event === 'MessagesMissed') windows.push({ from: message.from * 1000, to: message.to * 1000 })
        const [, sender, digits] = /^(\S+):(\d+)$/.exec(String(message.payload)) ?? []
        // What a sender of an earlier ledger left on its way is not this one's.
        if (sender === undefined || !sent.has(sender)) return
        delivered++
        receivedAt = Date.now()
        const number = Number(digits)
        if ((texts.get(message.payload) ?? text) !== text) changed.push(text)
        texts.set(message.payload, text)
        const last = lastOf(sender)
        const at = receivedAt
        if (number > last.number + 1) gaps.push({ sender, after: last, count: number - last.number - 1, until: at })
        if (number <= last.number && !last.isBase) duplicated++
        else seen.set(sender, { number, at, isBase: false })
      },
      isWhole: () => missing().every((gap) => Date.now() - receivedAt > QUIET && isTold(gap)),
      result(isDue) {
        const all = isDue ? [...gaps, ...missing()] : gaps
        return {
          delivered,
          duplicated,
          told: all.filter(isTold).reduce((sum, { count }) => sum + count, 0),
          lost: all
            .filter((gap) => !isTold(gap))
            .map(({ sender, after, count, until }) => `${count} of ${sender} after ${after.number}, ${after.at} to ${until}`),
          changed,
        }
      },
    }
  }

  return {
    next(sender) {
      const number = sent.get(sender) ?? 0
      sent.set(sender, number + 1)
      return `${sender}:${number}`
    },
    settle(sender) {
      settled.set(sender, (sent.get(sender) ?? 0) - 1)
    },
    sent: () => [...sent.values()].reduce((sum, count) => sum + count, 0),
    view,
  }
}
