/** Owns the newest messages in memory, as many as fit into so many bytes, and finds those of some channels behind a position. Pure. */

/** A message of the journal. Its number rises by the order of delivery, with gaps. */
export interface Entry {
  readonly number: number
  readonly channel: string
  readonly text: string
}

export interface Recent {
  /** Every message behind this number is here, up to the newest. */
  readonly since: number
  readonly bytes: number
  readonly size: number
  /** Takes the next message. */
  add(entry: Entry): void
  /** Forgets everything; the next message is one behind this number. */
  clear(since: number): void
  /** Up to so many messages of these channels behind a number that is not below `since`, in their order. */
  after(channels: readonly string[], number: number, limit: number): readonly Entry[]
  /** The last so many messages of these channels, in their order. */
  last(channels: readonly string[], count: number): readonly Entry[]
}

/** Beside its text, a message takes an object, and a place in two lists. */
const OVERHEAD = 100

export function createRecent(limit: number, start: number): Recent {
  let since = start
  let bytes = 0
  let all = createList()
  let byChannel = new Map<string, List>()

  const sizeOf = ({ channel, text }: Entry): number => OVERHEAD + channel.length + Buffer.byteLength(text)

  function dropOldest(): void {
    const entry = all.shift()
    if (entry === undefined) return
    since = entry.number
    bytes -= sizeOf(entry)
    const list = byChannel.get(entry.channel)
    list?.shift()
    if (list?.length === 0) byChannel.delete(entry.channel)
  }

  /** What each channel's list gives, in one order. */
  function merged(channels: readonly string[], take: (list: List) => readonly Entry[]): Entry[] {
    const lists = [...new Set(channels)].flatMap((channel) => byChannel.get(channel) ?? [])
    const found = lists.flatMap(take)
    return lists.length > 1 ? found.sort((one, other) => one.number - other.number) : found
  }

  return {
    get since() {
      return since
    },
    get bytes() {
      return bytes
    },
    get size() {
      return all.length
    },
    add(entry) {
      all.push(entry)
      const list = byChannel.get(entry.channel) ?? createList()
      byChannel.set(entry.channel, list)
      list.push(entry)
      bytes += sizeOf(entry)
      while (bytes > limit) dropOldest()
    },
    clear(next) {
      since = next
      bytes = 0
      all = createList()
      byChannel = new Map()
    },
    after: (channels, number, count) => merged(channels, (list) => list.after(number, count)).slice(0, count),
    last: (channels, count) => merged(channels, (list) => list.last(count)).slice(-count),
  }
}

interface List {
  readonly length: number
  push(entry: Entry): void
  shift(): Entry | undefined
  after(number: number, count: number): readonly Entry[]
  last(count: number): readonly Entry[]
}

/** The places in front that may be empty before the others move up. */
const EMPTY = 32

/** Entries by their numbers, which leave in front. */
function createList(): List {
  let entries: (Entry | undefined)[] = []
  let start = 0

  /** The index of the first entry behind a number. */
  function behind(number: number): number {
    let low = start
    let high = entries.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((entries[middle]?.number ?? 0) > number) high = middle
      else low = middle + 1
    }
    return low
  }

  const between = (from: number, to: number): readonly Entry[] =>
    entries.slice(Math.max(from, start), to).filter((entry) => entry !== undefined)

  return {
    get length() {
      return entries.length - start
    },
    push(entry) {
      entries.push(entry)
    },
    shift() {
      const entry = entries[start]
      if (entry === undefined) return undefined
      entries[start++] = undefined
      if (start > EMPTY && start * 2 > entries.length) {
        entries = entries.slice(start)
        start = 0
      }
      return entry
    },
    after(number, count) {
      const from = behind(number)
      return between(from, from + count)
    },
    last: (count) => between(entries.length - count, entries.length),
  }
}
