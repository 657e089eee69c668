import { describe, expect, test } from 'bun:test'
import type { Session } from '../../lib/channels/session.ts'
import { createEventStreams, messageEvent, namedEvent } from '../../lib/doors/event-stream.ts'
import { closing } from '../../lib/refusal.ts'
import { parseEvents } from '../support/event-source.ts'
import { createRandom } from '../support/random.ts'

const message = (data: string, id = '') => ({ event: 'message', data, id })

describe('a message is framed', () => {
  test.each([
    ['', 'data: \n\n'],
    ['hello', 'data: hello\n\n'],
    [' hello', 'data:  hello\n\n'],
    ['a\nb', 'data: a\ndata: b\n\n'],
    ['a\rb', 'data: a\ndata: b\n\n'],
    ['a\r\nb', 'data: a\ndata: b\n\n'],
    ['a\n\rb', 'data: a\ndata: \ndata: b\n\n'],
    ['\n', 'data: \ndata: \n\n'],
    ['id: 1\nevent: x', 'data: id: 1\ndata: event: x\n\n'],
  ])('%j as %j', (text, framed) => {
    expect(messageEvent(text, undefined)).toBe(framed)
    expect(parseEvents(framed).events).toEqual([message(text.replaceAll(/\r\n|\r/g, '\n'))])
  })

  test('with its position as the id that a reader comes back with', () => {
    expect(messageEvent('a\nb', '1a-7')).toBe('id: 1a-7\ndata: a\ndata: b\n\n')
    const stream = messageEvent('one', '1a-7') + messageEvent('two', undefined)
    expect(parseEvents(stream).events).toEqual([message('one', '1a-7'), message('two', '1a-7')])
  })

  test('so that any text comes out of a reader as it went in, but for the ends of its lines', () => {
    const pieces = ['\n', '\r', '\r\n', ':', ' ', 'data', 'data: ', 'id: 3', 'retry: 5', 'x', '☕', '\uFEFF', '\u2028', '\u0085']
    const { below, pick } = createRandom(7)
    for (let round = 0; round < 2000; round++) {
      const text = Array.from({ length: below(8) }, () => pick(pieces)).join('')
      const { events, retry } = parseEvents(messageEvent('before', undefined) + messageEvent(text, undefined))
      expect(events).toEqual([message('before'), message(text.replaceAll(/\r\n|\r/g, '\n'))])
      expect(retry).toBeUndefined()
    }
  })
})

test('an event of the server has a name and JSON', () => {
  expect(parseEvents(namedEvent('MessagesMissed', { channel: 'a\nb', from: null })).events).toEqual([
    { event: 'MessagesMissed', data: '{"channel":"a\\nb","from":null}', id: '' },
  ])
})

/** Streams that are open, with what they were written and what became of their sessions. */
function streams(of: 'events' | 'objects' = 'events') {
  const { [of]: kind } = createEventStreams()
  const closed: [string, number][] = []
  function open(name: string, channels: readonly string[], expiresAt = Number.POSITIVE_INFINITY) {
    const written: Uint8Array[] = []
    const ends: string[] = []
    // What a stream asks of its session.
    const session = { id: name, channels, grant: { expiresAt } } as unknown as Session
    let client: Session['client'] | undefined
    const source = kind.open(session, {
      open(_, opened) {
        client = opened
        for (const channel of channels) opened.join(channel)
      },
      discard: () => ends.push('discarded'),
      closed: ({ id }, code) => closed.push([id, code]),
    })
    const start = () =>
      source.opened({
        write: (bytes) => written.push(bytes),
        waiting: () => 7,
        end: () => ends.push('ended'),
        drop: () => ends.push('dropped'),
      })
    return {
      source,
      start,
      written,
      ends,
      get client() {
        if (!client) throw new Error('not open')
        return client
      },
      text: () => Buffer.concat(written).toString(),
    }
  }
  const opened = (...given: Parameters<typeof open>) => {
    const stream = open(...given)
    stream.start()
    stream.written.length = 0
    return stream
  }
  const publish = (channel: string, text: string): void => {
    const { form } = kind.protocol
    form.publish(channel, form.render(channel, text, undefined))
  }
  return { kind, open, opened, publish, closed }
}

describe('a stream', () => {
  test('begins with the time to come again', () => {
    const stream = streams().open('s', ['a'])
    stream.start()
    expect(stream.text()).toBe('retry: 1000\n\n')
  })

  test('gets the very bytes that all streams of a channel get, those of one tick in one piece', async () => {
    const { opened, publish } = streams()
    const [one, two, other] = [opened('1', ['a']), opened('2', ['a']), opened('3', ['b'])]
    for (const text of ['x', 'y', 'z']) publish('a', text)
    await Promise.resolve()
    expect(one.text()).toBe('data: x\n\ndata: y\n\ndata: z\n\n')
    expect(one.written).toHaveLength(1)
    expect(two.written[0]).toBe(one.written[0] as Uint8Array)
    expect(other.written).toEqual([])
  })

  test('gets what several channels carry in the order in which it was published', async () => {
    const { opened, publish } = streams()
    const [stream, other] = [opened('s', ['a', 'b']), opened('other', ['b'])]
    for (const [channel, text] of [
      ['a', '1'],
      ['b', '2'],
      ['b', '3'],
      ['a', '4'],
    ] as const)
      publish(channel, text)
    await Promise.resolve()
    expect(parseEvents(stream.text()).events.map(({ data }) => data)).toEqual(['1', '2', '3', '4'])
    expect(parseEvents(other.text()).events.map(({ data }) => data)).toEqual(['2', '3'])
  })

  test('gets what it is written alone behind what was published before', async () => {
    const { kind, opened, publish } = streams()
    const stream = opened('s', ['a'])
    publish('a', 'before')
    stream.client.write(kind.protocol.tell?.({ event: 'MessagesMissed', channel: 'a', from: 1, to: 2 }) ?? '')
    publish('a', 'behind')
    await Promise.resolve()
    expect(parseEvents(stream.text()).events).toEqual([
      message('before'),
      { event: 'MessagesMissed', data: '{"channel":"a","from":1,"to":2}', id: '' },
      message('behind'),
    ])
  })

  test('gets nothing that was published before it joined, or after it left', async () => {
    const { opened, publish } = streams()
    publish('a', 'early')
    const stream = opened('s', ['a'])
    publish('a', 'while')
    stream.client.leave('a')
    publish('a', 'late')
    await Promise.resolve()
    expect(parseEvents(stream.text()).events).toEqual([message('while')])
  })

  test('whose token ends says so last, behind what was published', async () => {
    const { opened, publish, closed } = streams()
    const stream = opened('s', ['a'], 1_767_225_600_500)
    publish('a', 'last')
    stream.client.end('EXPIRED', closing('EXPIRED'))
    publish('a', 'too late')
    await Promise.resolve()
    expect(stream.text()).toBe('data: last\n\nevent: TokenExpired\ndata: {"expires":1767225600.5}\n\n')
    expect({ ends: stream.ends, closed }).toEqual({ ends: ['ended'], closed: [['s', 1006]] })
  })

  test('that a shutdown ends is to come again within 1 to 5 s, no two at the same time', async () => {
    const { opened } = streams()
    const times = Array.from({ length: 100 }, (_, index) => {
      const stream = opened(String(index), ['a'])
      stream.client.end('SHUTDOWN', closing('SHUTDOWN'))
      expect(stream.text()).toMatch(/^retry: \d+\n\n$/)
      return parseEvents(stream.text()).retry ?? 0
    })
    expect(Math.min(...times)).toBeGreaterThanOrEqual(1000)
    expect(Math.max(...times)).toBeLessThanOrEqual(5000)
    expect(new Set(times).size).toBeGreaterThan(80)
  })

  test('that ends for another reason says it where only people read', () => {
    const stream = streams().opened('s', ['a'])
    stream.client.end('CHANNEL_LOST', closing('CHANNEL_LOST'))
    expect(stream.text()).toBe(': The database does not listen to a channel of this connection any more\n\n')
    expect(parseEvents(stream.text()).events).toEqual([])
  })

  test('is over once, and not in the midst of what ends it', async () => {
    const { opened, closed } = streams()
    const stream = opened('s', ['a'])
    stream.client.drop()
    expect(closed).toEqual([])
    stream.client.end('SHUTDOWN', closing('SHUTDOWN'))
    stream.client.write('late')
    await Promise.resolve()
    expect({ ends: stream.ends, closed, text: stream.text() }).toEqual({ ends: ['dropped'], closed: [['s', 1006]], text: '' })
  })

  test('whose client goes away is closed, and before it was open, discarded', async () => {
    const { open, opened, closed } = streams()
    const [stream, early] = [opened('s', ['a']), open('early', ['a'])]
    stream.source.gone()
    early.source.gone()
    await Promise.resolve()
    expect({ closed, ends: [stream.ends, early.ends] }).toEqual({ closed: [['s', 1005]], ends: [[], ['discarded']] })
  })

  test('shows by a comment that it is alive, and expects no answer', () => {
    const stream = streams().opened('s', ['a'])
    expect(stream.client.ping()).toBe(false)
    expect(stream.text()).toBe(':\n\n')
    expect(parseEvents(stream.text()).events).toEqual([])
    expect(stream.client.waiting()).toBe(7)
  })

  test('of objects gets those of pgws.json as data, with the position as the id too', async () => {
    const { kind, opened } = streams('objects')
    const stream = opened('s', ['a'], 1_767_225_600_500)
    const { form, tell, commands } = kind.protocol
    form.publish('a', form.render('a', 'x\ny', '1a-7'))
    stream.client.write(tell?.({ event: 'MessagesMissed', channel: 'a', from: null, to: 2 }) ?? '')
    stream.client.write(commands?.write({ event: 'TokenExpiring', expires: 5 }) ?? '')
    stream.client.end('EXPIRED', closing('EXPIRED'))
    const { events } = parseEvents(stream.text())
    expect(events.map(({ event, data, id }) => ({ event, id, data: JSON.parse(data) }))).toEqual(
      [
        { event: 'Message', channel: 'a', text: 'x\ny', position: '1a-7' },
        { event: 'MessagesMissed', channel: 'a', from: null, to: 2 },
        { event: 'TokenExpiring', expires: 5 },
        { event: 'TokenExpired', expires: 1_767_225_600.5 },
      ].map((data) => ({ event: 'message', id: '1a-7', data })),
    )
  })
})
