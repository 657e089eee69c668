/** Owns the tests' reader of event streams: it follows HTML's rules (section 9.2.6), apart from the program's own framing. */

export interface StreamEvent {
  readonly event: string
  readonly data: string
  /** The last id that the stream named, ahead of this event. */
  readonly id: string
}

export interface EventStream extends AsyncDisposable {
  readonly status: number
  readonly headers: Headers
  /** The body of a refusal. */
  text(): Promise<string>
  /** The next event, waiting for it. @throws when the stream ends first. */
  next(): Promise<StreamEvent>
  /** The next some events. */
  take(count: number): Promise<StreamEvent[]>
  /** Resolves when a comment has come since it was last asked. */
  comment(): Promise<string>
  /** What a browser would come back with. */
  readonly lastId: string
  /** Milliseconds after which to come again, as the stream said last. */
  readonly retry: number | undefined
  /** Whether it ended as it should, and not cut off. */
  readonly ended: Promise<'whole' | 'cut'>
  close(): Promise<void>
}

/** Takes a stream apart. `field` gets each field, `comment` each comment, `dispatch` is called at each empty line. */
function createParser(line: (text: string) => void): (chunk: string) => void {
  let rest = ''
  let isFirst = true
  return (chunk) => {
    rest += chunk
    if (isFirst && rest !== '') {
      isFirst = false
      if (rest.startsWith('\uFEFF')) rest = rest.slice(1)
    }
    for (;;) {
      // A CR at the very end may have its LF still to come.
      const found = /\r\n|\n|\r(?!$)/.exec(rest)
      if (!found) return
      line(rest.slice(0, found.index))
      rest = rest.slice(found.index + found[0].length)
    }
  }
}

/** Reads the events of a text, as a browser would. */
export function parseEvents(text: string): { readonly events: StreamEvent[]; readonly retry: number | undefined } {
  const events: StreamEvent[] = []
  const state = createReader((event) => events.push(event))
  state.push(text)
  return { events, retry: state.retry() }
}

function createReader(dispatch: (event: StreamEvent) => void, commented: (text: string) => void = () => undefined) {
  let [data, event, id] = ['', '', '']
  let retry: number | undefined
  const push = createParser((line) => {
    if (line === '') {
      if (data !== '') dispatch({ event: event || 'message', data: data.slice(0, -1), id })
      data = event = ''
      return
    }
    if (line.startsWith(':')) return commented(line.slice(1))
    const [, name = '', value = ''] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line) ?? []
    if (name === 'data') data += `${value}\n`
    else if (name === 'event') event = value
    else if (name === 'id' && !value.includes('\0')) id = value
    else if (name === 'retry' && /^\d+$/.test(value)) retry = Number(value)
  })
  return { push, retry: () => retry, lastId: () => id }
}

/** Opens a stream; resolves once its headers are there. */
export async function openStream(
  url: string,
  options: { headers?: Record<string, string>; ca?: string } = {},
): Promise<EventStream> {
  const aborter = new AbortController()
  const response = await fetch(url, {
    headers: { Accept: 'text/event-stream', ...options.headers },
    signal: aborter.signal,
    ...(options.ca ? { tls: { ca: options.ca } } : {}),
  })
  const received: StreamEvent[] = []
  const readers: { resolve: (event: StreamEvent) => void; reject: (error: Error) => void }[] = []
  const comments: ((text: string) => void)[] = []
  const reader = createReader(
    (event) => {
      const waiting = readers.shift()
      if (waiting) waiting.resolve(event)
      else received.push(event)
    },
    (text) => {
      for (const commented of comments.splice(0)) commented(text)
    },
  )
  let isOver = !response.ok
  const over = (how: 'whole' | 'cut'): 'whole' | 'cut' => {
    isOver = true
    for (const { reject } of readers.splice(0)) reject(new Error(`the stream ended ${how}`))
    return how
  }
  async function read(): Promise<'whole' | 'cut'> {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
    try {
      for await (const chunk of response.body ?? []) reader.push(decoder.decode(chunk, { stream: true }))
      return over('whole')
    } catch {
      return over('cut')
    }
  }
  const ended = response.ok ? read() : Promise.resolve('whole' as const)
  const next = (): Promise<StreamEvent> => {
    const event = received.shift()
    if (event) return Promise.resolve(event)
    if (isOver) return Promise.reject(new Error('the stream has ended'))
    return new Promise((resolve, reject) => readers.push({ resolve, reject }))
  }
  const close = async (): Promise<void> => {
    aborter.abort()
    await ended
  }
  return {
    status: response.status,
    headers: response.headers,
    text: () => response.text(),
    next,
    async take(count) {
      const events: StreamEvent[] = []
      while (events.length < count) events.push(await next())
      return events
    },
    comment: () => new Promise((resolve) => comments.push(resolve)),
    get lastId() {
      return reader.lastId()
    },
    get retry() {
      return reader.retry()
    },
    ended,
    close,
    [Symbol.asyncDispose]: close,
  }
}
