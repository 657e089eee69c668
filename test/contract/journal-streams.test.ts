/** How messages of the journal come in by POST and go out by event streams, from the program as it is run. */
import { describe, expect, test } from 'bun:test'
import { within } from '../../lib/waiting.ts'
import { payloadOf } from '../support/client.ts'
import { openStream } from '../support/event-source.ts'
import { withJournalServer } from '../support/journal-server.ts'
import { unique } from '../support/setup.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

const server = withJournalServer()
const { publish, sequenced } = server

const url = async (channel: string, query = ''): Promise<string> =>
  `http://127.0.0.1:${server.program.port}/${channel}/${await token({ mode: 'rw' })}${query}`

const open = async (channel: string, query = '', lastRead?: string) =>
  openStream(await url(channel, query), lastRead === undefined ? {} : { headers: { 'Last-Event-ID': lastRead } })

describe('an event stream', () => {
  test('names the position of each message, and goes on behind the one that its client read last', async () => {
    const channel = unique('resumed')
    const first = await open(channel)
    await publish(channel, '1', '2\n2')
    const read = await first.take(2)
    expect(read.map(({ data }) => data)).toEqual(['1', '2\n2'])
    expect(new Set(read.map(({ id }) => id)).size).toBe(2)
    await first.close()
    await publish(channel, '3', '4')
    await sequenced()
    await using again = await open(channel, '', read[0]?.id)
    await publish(channel, '5')
    expect((await again.take(4)).map(({ data }) => data)).toEqual(['2\n2', '3', '4', '5'])
  })

  test('goes on behind what its client read last, whatever its URL began with', async () => {
    const channel = unique('url')
    await publish(channel, '1', '2', '3')
    await sequenced()
    const first = await open(channel, '?last=3')
    const read = await first.take(3)
    await first.close()
    for (const query of ['?last=3', `?since=${read[0]?.id}`]) {
      await using again = await open(channel, query, read[1]?.id)
      expect((await again.next()).data).toBe('3')
    }
    await using empty = await open(channel, '?last=1', '')
    expect((await empty.next()).data).toBe('3')
  })

  test.each(['', '?protocol=pgws.json'])(
    'that is cut off ahead of its first message goes on where it began: %j',
    async (query) => {
      const channel = unique('unread')
      await publish(channel, 'earlier')
      await sequenced()
      const first = await open(channel, query)
      await within(
        2000,
        until(() => first.lastId !== ''),
      )
      expect(first.lastId).toMatch(/-\d+$/)
      await first.close()
      await publish(channel, 'meanwhile')
      await sequenced()
      await using again = await open(channel, query, first.lastId)
      if (query !== '') expect(JSON.parse((await again.next()).data)).toMatchObject({ event: 'Connected' })
      expect((await again.next()).data).toContain('meanwhile')
    },
  )

  test('that comes back with a position that is lost is told so, and reads on', async () => {
    const channel = unique('lost')
    await publish(channel, 'before')
    await sequenced()
    const first = await open(channel, '?last=1')
    const { id } = await first.next()
    await first.close()
    // Of another cluster.
    await using stream = await open(
      channel,
      '',
      id.replace(/^\w/, (digit) => (digit === '1' ? '2' : '1')),
    )
    const told = await stream.next()
    expect({ ...told, data: JSON.parse(told.data) }).toEqual({
      event: 'MessagesMissed',
      data: { channel, from: null, to: expect.any(Number) },
      // What it is to come back with from now on.
      id: expect.stringMatching(/-\d+$/),
    })
    await publish(channel, 'behind')
    expect((await stream.next()).data).toBe('behind')
    await using again = await open(channel, '', told.id)
    expect((await again.next()).data).toBe('behind')
  })

  test('of a channel with a NUL, on which nothing is kept, has the history of the others', async () => {
    const channel = unique('beside')
    await publish(channel, '1')
    await sequenced()
    const given = await token({ mode: 'r', channels: [`${channel}\0`, channel] })
    await using stream = await openStream(`http://127.0.0.1:${server.program.port}/${given}?last=5`)
    expect((await stream.next()).data).toBe('1')
    await using alone = await open(encodeURIComponent(`${channel}\0`), '?last=5')
    expect(alone.status).toBe(200)
  })

  test('of the protocol pgws.json has the position in its objects and as its id', async () => {
    const channel = unique('objects')
    await using stream = await open(channel, '?protocol=pgws.json')
    expect(JSON.parse((await stream.next()).data)).toMatchObject({ event: 'Connected', position: expect.any(String) })
    await publish(channel, 'x')
    const message = await stream.next()
    expect(JSON.parse(message.data)).toEqual({ event: 'Message', channel, text: 'x', position: message.id })
  })

  test('reads a long history as its client drains it', async () => {
    const channel = unique('long')
    await server.journal
      .sql`select count(pgws.publish(${channel}, n || ' ' || repeat('x', 20000))) from generate_series(1, 500) as n`
    await sequenced()
    await using stream = await open(channel, '?last=500')
    const events = await stream.take(500)
    expect(events.map(({ data }) => Number.parseInt(data, 10))).toEqual(Array.from({ length: 500 }, (_, index) => index + 1))
  })
})

describe('a POST', () => {
  const post = async (channel: string, body: string, key?: string) =>
    fetch(await url(channel), { method: 'POST', body, ...(key === undefined ? {} : { headers: { 'Idempotency-Key': key } }) })

  test('that is repeated with its key is published once, and its answer is the same', async () => {
    const channel = unique('kept-once')
    await using stream = await open(channel)
    for (const [body, key] of [
      ['a', 'key-1'],
      ['a', 'key-1'],
      ['a', 'key-2'],
      ['b', undefined],
      ['b', undefined],
    ] as const)
      expect((await post(channel, body, key)).status).toBe(204)
    expect((await stream.take(4)).map(({ data }) => payloadOf(data))).toEqual(['a', 'a', 'b', 'b'])
  })

  test('may be as large as PGWS_MAX_MESSAGE_BYTES on a channel that is kept', async () => {
    const channel = unique('kept-large')
    await using stream = await open(channel)
    expect((await post(channel, 'x'.repeat(1_000_000))).status).toBe(204)
    expect(payloadOf((await stream.next()).data)).toHaveLength(1_000_000)
    const larger = await post(channel, 'x'.repeat(1_100_000))
    expect({ status: larger.status, text: await larger.text() }).toMatchObject({
      status: 413,
      text: expect.stringContaining('PGWS_MAX_MESSAGE_BYTES'),
    })
    expect((await post(unique('notified'), 'x'.repeat(8000))).status).toBe(413)
  })

  test('whose key is too long is refused', async () => {
    const answer = await post(unique('kept-key'), 'x', 'k'.repeat(257))
    expect({ status: answer.status, text: await answer.text() }).toEqual({
      status: 400,
      text: 'Idempotency-Key has more than 256 characters',
    })
    expect((await post(unique('kept-key'), 'x', 'k'.repeat(256))).status).toBe(204)
  })
})
