/** How `pgws.json` and the journal go together: positions, history in a subscription, keys, outages. */
import { expect, test } from 'bun:test'
import { payloadOf } from '../support/client.ts'
import { type Commanding, converse, type Event } from '../support/commands.ts'
import { endBackends } from '../support/faults.ts'
import { withJournalServer } from '../support/journal-server.ts'
import { unique } from '../support/setup.ts'

const server = withJournalServer()
const { publish } = server

const POSITION = /^[\da-f]+\.\d+-\d+$/

const texts = (events: readonly Event[]): unknown[] => events.map(({ text }) => text)

async function subscribed(client: Commanding, channel: string, more: Event = {}): Promise<Event> {
  const [answer] = await client.ask({ command: 'subscribe', channel, ...more })
  // What is matched by a pattern within an object does not stay a text.
  expect(answer).toMatchObject({ event: 'Subscribed', channel })
  expect(String(answer?.position)).toMatch(POSITION)
  return answer ?? {}
}

test('each message has a position, behind which a later subscription goes on without a gap or a double', async () => {
  const channel = unique('resume')
  const first = await converse(server.program)
  expect(String(first.connected.position)).toMatch(POSITION)
  await subscribed(first, channel)
  await publish(channel, '1', '2')
  const [, second] = await first.take(2)
  expect({ ...second }).toEqual({ event: 'Message', channel, text: '2', position: expect.stringMatching(POSITION) })
  await first.client.close()
  await publish(channel, '3', '4')
  await using client = await converse(server.program)
  const answer = await subscribed(client, channel, { since: second?.position })
  expect(answer.position).toBe(second?.position)
  await publish(channel, '5')
  expect(texts(await client.take(3))).toEqual(['3', '4', '5'])
})

test('the position of an answer is good where no message came behind it', async () => {
  const [channel, other] = [unique('quiet'), unique('busy')]
  const first = await converse(server.program, { path: `/${other}` })
  const { position } = await subscribed(first, channel)
  await first.client.close()
  await publish(other, 'elsewhere')
  await publish(channel, 'while it was away')
  await using client = await converse(server.program)
  await subscribed(client, channel, { since: position })
  expect(await client.next()).toMatchObject({ channel, text: 'while it was away' })
  await using again = await converse(server.program, { path: `/${channel}?since=${first.connected.position}` })
  expect(again.connected.position).toBe(first.connected.position)
  expect(await again.next()).toMatchObject({ channel, text: 'while it was away' })
})

test('a subscription begins with the last messages, oldest first', async () => {
  const channel = unique('last')
  await using client = await converse(server.program, { path: `/${channel}` })
  await publish(channel, '1', '2', '3', '4')
  expect(texts(await client.take(4))).toEqual(['1', '2', '3', '4'])
  await client.ask({ command: 'unsubscribe', channel })
  await subscribed(client, channel, { last: 3 })
  await publish(channel, '5')
  expect(texts(await client.take(4))).toEqual(['2', '3', '4', '5'])
})

test('of a position that is lost the client is told behind its answer, and a malformed one is refused', async () => {
  const channel = unique('lost')
  await using client = await converse(server.program)
  const { position } = await subscribed(client, unique('where'))
  const beyond = String(position).replace(/\d+$/, '999999999')
  await subscribed(client, channel, { since: beyond })
  expect(await client.next()).toEqual({ event: 'MessagesMissed', channel, from: null, to: expect.any(Number) })
  await publish(channel, 'live')
  expect(await client.next()).toMatchObject({ text: 'live' })
  expect(await client.ask({ id: 1, command: 'subscribe', channel: `${channel}-2`, since: 'xyz.1-7' })).toMatchObject([
    { id: 1, event: 'Refused', code: 'POSITION_MALFORMED' },
  ])
})

test('what is published on kept channels and on others is answered in one order, and kept once under one key', async () => {
  const [kept, other] = [unique('kept'), unique('other')]
  await using reader = await converse(server.program, { path: `/${kept}` })
  await using client = await converse(server.program, { claims: { mode: 'w' } })
  const count = 400
  for (let id = 0; id < count; id++)
    client.say({ id, command: 'publish', channel: id % 3 ? kept : other, text: String(id), key: id % 3 ? `key ${id >> 1}` : 'k' })
  const answers = await client.take(count)
  expect(answers).toEqual(Array.from({ length: count }, (_, id) => ({ id, event: 'Published', channel: id % 3 ? kept : other })))
  const ids = Array.from({ length: count }, (_, id) => id).filter((id) => id % 3)
  const once = ids.filter((id) => !(id % 2 && ids.includes(id - 1)))
  const messages = await reader.take(once.length)
  expect(messages.map(({ text }) => payloadOf(String(text)))).toEqual(once.map(String))
})

test('a text that the journal takes is taken however its JSON is escaped, and one that it does not is refused alone', async () => {
  const channel = unique('kept')
  await using client = await converse(server.program, { claims: { mode: 'w' } })
  const publishing = (id: number, length: number): string =>
    `{"id":${id},"command":"publish","channel":"${channel}","text":"${'\\u00e4'.repeat(length)}"}`
  expect(await client.ask(publishing(1, 520_000), publishing(2, 524_260), publishing(3, 1))).toMatchObject([
    { id: 1, event: 'Published' },
    { id: 2, event: 'Refused', code: 'TOO_LARGE_TO_KEEP' },
    { id: 3, event: 'Published' },
  ])
})

test('over an outage of LISTEN a kept channel goes on without a word, and of another the client is told', async () => {
  const [kept, other] = [unique('kept'), unique('other')]
  await using client = await converse(server.program, { path: `/${kept}` })
  await client.ask({ command: 'subscribe', channel: other })
  const before = server.program.stderr().length
  expect(await endBackends(server.journal.server, 'listening')).toBeGreaterThan(0)
  await publish(kept, 'while it was away')
  await server.program.logged(/listening again/, before)
  const events = await client.take(2)
  expect(events.find(({ event }) => event === 'Message')).toMatchObject({ channel: kept, text: 'while it was away' })
  expect(events.find(({ event }) => event === 'MessagesMissed')).toMatchObject({ channel: other, from: expect.any(Number) })
})
