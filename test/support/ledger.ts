/**
 * Owns the judgement of a load: senders number their messages, the database says what was committed and when, and each reader's view is
 * held against that.
 *
 * What a sender sent is in the database in its order, without holes, and to its end where that was accepted. What is in the database is
 * at each reader, in the order of the commits, or lies by its commit time in a window of its channel of which the reader was told ahead
 * of the first message behind the gap. A message that was sent again is the same byte for byte.
 */
import type { Committed } from './witness.ts'

export interface Ledger {
  /** A sender's next payload, `NAME:NUMBER`. Whoever sends to several channels is a sender on each, or sends each message to all. */
  next(sender: string): string
  /** A text for a channel that nothing else equals. Who has seen it has seen what was committed ahead of it. */
  mark(channel: string): string
  /** Whatever the sender has sent so far was accepted. @param home what it was accepted by. */
  settle(sender: string, home?: object): void
  /** What a home accepted may be gone: it was killed. */
  abandon(home: object): void
  /** The view of a reader that is connected now. */
  view(channels: readonly string[]): View
  /** Senders of which what was accepted is not all there. */
  missing(truth: readonly Committed[]): readonly string[]
  /** Judges everything. @param truth what was committed, in the order of the commits. */
  judge(truth: readonly Committed[]): Verdict
}

export interface View {
  readonly channels: readonly string[]
  receive(text: string): void
  /** Whether it has seen a mark, or was told that it may have missed what was committed on its channel between two times. */
  hasSeen(mark: string, from: number, to: number): boolean
  /** Holds it to everything ahead of these marks, one of each of its channels, instead of ahead of the last text it has seen. */
  due(marks: readonly string[]): void
}

export interface Verdict {
  readonly sent: number
  readonly committed: number
  readonly delivered: number
  /** Messages that stand in the database once more, identical to the first. */
  readonly duplicated: number
  /** Messages that readers were told they may have missed. */
  readonly told: number
  /** Messages that readers missed without a word, or that were accepted and are not in the database. */
  readonly lost: readonly string[]
  /** Copies that differ from the first, and texts that nobody committed. */
  readonly changed: readonly string[]
  readonly disordered: readonly string[]
}

/** Milliseconds by which clocks may differ: the programs' go in whole milliseconds. */
const CLOCKS = 2

/** How the senders of marks are named. */
const MARK = 'mark-'

const LISTEN_CHANNEL = 'postgres-websockets-listener'

interface Note {
  readonly channel: string
  /** Undefined for what no sender of this ledger sent. */
  readonly sender: string | undefined
  readonly number: number
}

interface Window {
  readonly channel: string
  readonly from: number
  readonly to: number
}

interface Entry {
  readonly text: number
  readonly at: number
}

interface Seen {
  readonly openedAt: number
  readonly channels: readonly string[]
  /** What came, in order: a text's number, or below zero a window's. */
  readonly stream: number[]
  readonly windows: Window[]
  readonly marks: Set<string>
  due: readonly string[]
}

export function createLedger(): Ledger {
  const senders = new Map<string, number>()
  const settled = new Map<string, { readonly end: number; readonly home: object | undefined }>()
  /** Each distinct text is kept once, however many readers see it. */
  const texts = new Map<string, number>()
  const notes: Note[] = []
  const firsts = new Map<string, number>()
  const changed: string[] = []
  const views: Seen[] = []
  let marks = 0

  function numberOf(text: string): number {
    const known = texts.get(text)
    if (known !== undefined) return known
    const { channel, payload } = JSON.parse(text)
    const [, name = '', digits] = /^(\S+):(\d+)$/.exec(String(payload)) ?? []
    const sender = senders.has(name) ? name : undefined
    const number = notes.push({ channel, sender, number: Number(digits) }) - 1
    texts.set(text, number)
    if (sender !== undefined) {
      const identity = `${channel} ${payload}`
      if (firsts.has(identity)) changed.push(`a copy differs: ${text}`)
      else firsts.set(identity, number)
    }
    return number
  }

  const noteOf = (text: number): Note => notes[text] ?? { channel: '', sender: undefined, number: -1 }
  const textOf = (text: number): string => [...texts.keys()][text] ?? ''

  /** What was committed on each channel by senders of this ledger. */
  function entriesOf(truth: readonly Committed[]): ReadonlyMap<string, Entry[]> {
    const entries = new Map<string, Entry[]>()
    for (const { channel, notification, at } of truth) {
      const text = numberOf(notification)
      const note = noteOf(text)
      if (note.sender === undefined) continue
      if (channel !== LISTEN_CHANNEL && channel !== note.channel) throw new Error(`notified on ${channel}: ${notification}`)
      const list = entries.get(note.channel) ?? []
      entries.set(note.channel, list)
      list.push({ text, at })
    }
    return entries
  }

  function missing(truth: readonly Committed[]): readonly string[] {
    const ends = new Map<string, Set<number>>()
    for (const list of entriesOf(truth).values()) {
      for (const { text } of list) {
        const { sender = '', number } = noteOf(text)
        ends.set(sender, (ends.get(sender) ?? new Set()).add(number))
      }
    }
    return [...settled].filter(([sender, { end }]) => end >= 0 && !ends.get(sender)?.has(end)).map(([sender]) => sender)
  }

  /** Each message follows the one before it of its sender, or goes back to one that is sent again together with those behind it. */
  function judgeSenders(list: readonly Entry[], findings: Findings): void {
    const known = new Set(list.map(({ text }) => text))
    const heads = new Set<number>()
    const last = new Map<string, number>()
    for (const { text } of list) {
      const { channel, sender = '', number } = noteOf(text)
      const before = last.get(sender) ?? -1
      last.set(sender, number)
      if (heads.has(text)) findings.duplicated++
      heads.add(text)
      if (number <= before + 1) continue
      const skipped = firsts.get(`${channel} ${sender}:${before + 1}`)
      const what = `${sender} on ${channel}: ${number} is in the database behind ${before}`
      if (skipped !== undefined && known.has(skipped)) findings.disordered.push(what)
      else findings.lost.push(`${what}, and none between`)
    }
  }

  function judgeReader(view: Seen, channel: string, list: readonly Entry[], findings: Findings): void {
    const places = new Map<number, number[]>()
    for (const [index, { text }] of list.entries()) {
      const found = places.get(text)
      if (found) found.push(index)
      else places.set(text, [index])
    }
    const seen = new Set(view.stream)
    const windows: Window[] = []
    let place = -1

    function skip(end: number): void {
      const gap = list.slice(place + 1, end).filter(({ text, at }) => at > view.openedAt + CLOCKS && !seen.has(text))
      const untold = gap.filter(({ at }) => !windows.some(({ from, to }) => from - CLOCKS <= at && at <= to + CLOCKS))
      findings.told += gap.length - untold.length
      const [first] = untold
      if (first === undefined) return
      const heard = windows.map(({ from, to }) => `${from} to ${to}`).join(', ')
      findings.lost.push(
        `${untold.length} of ${gap.length} missed on ${channel}, committed from ${first.at} to ${untold.at(-1)?.at}, by a reader since ` +
          `${view.openedAt} that was told of ${heard || 'nothing'}; the first is ${textOf(first.text)}`,
      )
    }

    for (const item of view.stream) {
      const window = item < 0 ? view.windows[-item - 1] : undefined
      if (window?.channel === channel) windows.push(window)
      if (window !== undefined || noteOf(item).channel !== channel) continue
      findings.delivered++
      const next = places.get(item)?.find((index) => index > place)
      if (next !== undefined) {
        skip(next)
        place = next
      } else if (places.has(item)) findings.disordered.push(`a reader got ${textOf(item)} out of order`)
      else findings.changed.push(`a reader got what nobody committed: ${textOf(item)}`)
    }
    const due = view.due.map(numberOf).find((text) => noteOf(text).channel === channel)
    if (due === undefined) return
    const end = places.get(due)?.[0]
    if (end === undefined) throw new Error(`the mark ${textOf(due)} was not committed`)
    skip(end + 1)
  }

  function next(sender: string): string {
    const number = senders.get(sender) ?? 0
    senders.set(sender, number + 1)
    return `${sender}:${number}`
  }

  return {
    next,
    mark: (channel) => JSON.stringify({ event: 'WebsocketMessage', channel, payload: next(`${MARK}${++marks}`) }),
    settle(sender, home) {
      settled.set(sender, { end: (senders.get(sender) ?? 0) - 1, home })
    },
    abandon(gone) {
      for (const [sender, { home }] of settled) if (home === gone) settled.delete(sender)
    },
    view(channels) {
      const view: Seen = { openedAt: Date.now(), channels, stream: [], windows: [], marks: new Set(), due: [] }
      views.push(view)
      return {
        channels,
        receive(text) {
          if (text.startsWith('{"event":"MessagesMissed"')) {
            const { channel, from, to } = JSON.parse(text)
            view.stream.push(-view.windows.push({ channel, from: from * 1000, to: to * 1000 }))
            return
          }
          const number = numberOf(text)
          if (noteOf(number).sender?.startsWith(MARK)) view.marks.add(text)
          // What a sender of an earlier ledger left on its way is not this one's.
          if (noteOf(number).sender !== undefined) view.stream.push(number)
        },
        hasSeen: (mark, from, to) =>
          view.marks.has(mark) ||
          view.windows.some(
            (window) => window.channel === noteOf(numberOf(mark)).channel && window.from <= from && window.to >= to,
          ),
        due(marks) {
          view.due = marks
        },
      }
    },
    missing,
    judge(truth) {
      const findings: Findings = { delivered: 0, duplicated: 0, told: 0, lost: [], changed, disordered: [] }
      const entries = entriesOf(truth)
      for (const list of entries.values()) judgeSenders(list, findings)
      for (const sender of missing(truth)) {
        findings.lost.push(`${sender} was accepted to its end at ${settled.get(sender)?.end}, which is not in the database`)
      }
      for (const view of views) {
        for (const channel of view.channels) judgeReader(view, channel, entries.get(channel) ?? [], findings)
      }
      const sent = [...senders.values()].reduce((sum, count) => sum + count, 0)
      const committed = [...entries.values()].reduce((sum, list) => sum + list.length, 0)
      return { sent, committed, ...findings }
    },
  }
}

interface Findings {
  delivered: number
  duplicated: number
  told: number
  readonly lost: string[]
  readonly changed: string[]
  readonly disordered: string[]
}
