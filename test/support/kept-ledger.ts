/**
 * Owns the judgement of a load on the journal: who publishes says what was committed and what was rolled back, the journal says in which
 * order, and what each reader got is held against that, exactly.
 */

/** A message of the journal, in its order. */
export interface Kept {
  readonly number: number
  readonly channel: string
  readonly text: string
}

export interface KeptLedger {
  /** A publisher's next text. Nothing else equals it. */
  next(publisher: string): string
  /** These were committed, or will be. @param home what accepted them. */
  committed(texts: readonly string[], home?: object): void
  rolledBack(texts: readonly string[]): void
  /** What a home accepted may be gone: it was killed. */
  abandon(home: object): void
  /** Somebody who is to get all of some channels behind a number. */
  view(channels: readonly string[], from: number): KeptView
  /** Whether everything that was committed is there. */
  isWhole(truth: readonly Kept[]): boolean
  judge(truth: readonly Kept[]): KeptVerdict
}

export interface KeptView {
  /** A message, by the text of its publisher or in a client's envelope. */
  receive(text: string): void
  /** It was told that it may have missed messages. */
  told(): void
  hasSeen(text: string): boolean
  /** Holds it to everything, instead of to all up to the last that it got. */
  complete(): void
}

export interface KeptVerdict {
  readonly published: number
  readonly read: number
  /** Committed and not in the journal, or in the journal and not at a reader. */
  readonly missed: readonly string[]
  readonly twice: readonly string[]
  readonly disordered: readonly string[]
  /** Rolled back and there all the same; or readers that were told of a loss, of which there is none. */
  readonly wrong: readonly string[]
}

interface Seen {
  readonly channels: readonly string[]
  readonly from: number
  readonly texts: string[]
  readonly known: Set<string>
  isComplete: boolean
}

/** What a publisher said: its text, also in an envelope. */
const saidIn = (text: string): string => (text.startsWith('{') ? String(JSON.parse(text).payload) : text)

export function createKeptLedger(): KeptLedger {
  const counts = new Map<string, number>()
  const accepted = new Map<string, object | undefined>()
  const undone = new Set<string>()
  const views: Seen[] = []
  const wrong: string[] = []

  function judgePublishers(said: readonly string[], found: Findings): void {
    const known = new Set<string>()
    const last = new Map<string, number>()
    for (const text of said) {
      const [publisher = '', number] = text.split(':')
      if (known.has(text)) found.twice.push(`${text} is twice in the journal`)
      else if ((last.get(publisher) ?? -1) > Number(number))
        found.disordered.push(`${text} is behind a later one of its publisher`)
      if (undone.has(text)) wrong.push(`${text} was rolled back, and is in the journal`)
      known.add(text)
      last.set(publisher, Number(number))
    }
    for (const text of accepted.keys())
      if (!known.has(text)) found.missed.push(`${text} was committed, and is not in the journal`)
  }

  function judgeReader(
    { channels, from, texts, known, isComplete }: Seen,
    index: number,
    truth: readonly Kept[],
    found: Findings,
  ): void {
    const reader = `reader ${index} of ${channels.join()} from ${from}`
    const due = truth.filter(({ channel, number }) => number > from && channels.includes(channel)).map(({ text }) => saidIn(text))
    if (!isComplete) due.length = due.lastIndexOf(texts.at(-1) ?? '') + 1
    const missing = due.filter((text) => !known.has(text))
    const expected = new Set(due)
    const strange = texts.filter((text) => !expected.has(text))
    if (known.size < texts.length) found.twice.push(`${reader} got ${texts.length - known.size} twice`)
    if (missing.length > 0)
      found.missed.push(`${reader} got ${texts.length}, and not these ${missing.length}: ${missing.slice(0, 3)} …`)
    if (strange.length > 0) wrong.push(`${reader} got ${strange.length} that are not its own: ${strange.slice(0, 3)} …`)
    const isSame = texts.length === due.length && texts.every((text, place) => text === due[place])
    const isOtherwiseWell = known.size === texts.length && missing.length === 0 && strange.length === 0
    if (isOtherwiseWell && !isSame) found.disordered.push(`${reader} got its messages in another order`)
  }

  return {
    next(publisher) {
      const number = counts.get(publisher) ?? 0
      counts.set(publisher, number + 1)
      return `${publisher}:${number}`
    },
    committed(texts, home) {
      for (const text of texts) accepted.set(text, home)
    },
    rolledBack(texts) {
      for (const text of texts) undone.add(text)
    },
    abandon(gone) {
      for (const [text, home] of accepted) if (home === gone) accepted.delete(text)
    },
    view(channels, from) {
      const seen: Seen = { channels, from, texts: [], known: new Set(), isComplete: false }
      views.push(seen)
      return {
        receive(text) {
          const said = saidIn(text)
          seen.texts.push(said)
          seen.known.add(said)
        },
        told: () => wrong.push(`a reader of ${channels.join()} was told that messages are missed`),
        hasSeen: (text) => seen.known.has(text),
        complete() {
          seen.isComplete = true
        },
      }
    },
    isWhole(truth) {
      const said = new Set(truth.map(({ text }) => saidIn(text)))
      return [...accepted.keys()].every((text) => said.has(text))
    },
    judge(truth) {
      const found: Findings = { missed: [], twice: [], disordered: [] }
      judgePublishers(
        truth.map(({ text }) => saidIn(text)),
        found,
      )
      for (const [index, view] of views.entries()) judgeReader(view, index, truth, found)
      return { published: truth.length, read: views.reduce((sum, { texts }) => sum + texts.length, 0), ...found, wrong }
    },
  }
}

interface Findings {
  readonly missed: string[]
  readonly twice: string[]
  readonly disordered: string[]
}
