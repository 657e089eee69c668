import { afterEach, expect, jest, test } from 'bun:test'
import type { Grant } from '../../lib/access/grant.ts'
import type { Outcome } from '../../lib/channels/broker.ts'
import type { Envelope } from '../../lib/channels/envelope.ts'
import { createAlone, openFake, protocols } from '../support/sessions.ts'

afterEach(() => void jest.useRealTimers())

/** A client that is open, what it published, and the codes that it was closed with. Whether the broker has room is the test's to say. */
function open(given: Partial<Grant>, hasRoom = true) {
  const sent: Envelope[] = []
  const settle: ((outcome: Outcome) => void)[] = []
  const sessions = createAlone({
    broker: {
      history: undefined,
      publish: (messages, settled) => {
        if (hasRoom) sent.push(...messages)
        settle.push(settled)
        return hasRoom
      },
    },
  })
  const { session, codes } = openFake(sessions, given)
  return {
    say: (text: string) => sessions.message(session, text),
    sent,
    settle,
    codes,
    [Symbol.dispose]: () => sessions.closed(session, 1000, ''),
  }
}

test('a message that comes after the end of its token, though before its timer, is not sent', () => {
  jest.useFakeTimers()
  using client = open({ expiresAt: Date.now() + 10_000 })
  const { say, sent, codes } = client
  say('in time')
  expect(sent).toHaveLength(2)
  // The clock of the system goes on without that of the timers, as in a machine that was asleep.
  jest.setSystemTime(Date.now() + 10_000)
  say('late')
  expect(sent).toHaveLength(2)
  expect(codes).toEqual([3001])
})

test('a client whose message finds no room is closed with 1013, and nothing more of it is taken', () => {
  using client = open({}, false)
  client.say('no room')
  client.say('after')
  expect(client.codes).toEqual([1013])
})

test('a client whose message the broker refused is closed once with 1011', () => {
  using client = open({})
  client.say('one')
  client.say('two')
  client.settle[0]?.('committed')
  expect(client.codes).toEqual([])
  for (const settled of client.settle) settled({ code: '22P05', reason: 'no such character' })
  expect(client.codes).toEqual([1011])
})

test('a reader joins its channels as it opens, and one that only writes joins none', () => {
  const sessions = createAlone()
  const reader = openFake(sessions)
  const writer = openFake(sessions, { mode: 'w', canRead: false })
  expect([reader.joined, writer.joined]).toEqual([['a', 'b'], []])
  for (const { session } of [reader, writer]) sessions.closed(session, 1000, '')
})

test('of an outage each reader is told that can be, for each of its channels', () => {
  const sessions = createAlone()
  const told = openFake(sessions, {}, protocols.pgws)
  const plain = openFake(sessions)
  const writer = openFake(sessions, { mode: 'w', canRead: false }, protocols.pgws)
  sessions.missed(1000, 2500)
  expect(told.texts.map((text) => JSON.parse(text))).toEqual([
    { event: 'MessagesMissed', channel: 'a', from: 1, to: 2.5 },
    { event: 'MessagesMissed', channel: 'b', from: 1, to: 2.5 },
  ])
  expect([plain.texts, plain.codes, writer.texts]).toEqual([[], [], []])
  for (const { session } of [told, plain, writer]) sessions.closed(session, 1000, '')
})

test('where readers are not to go on without a word, those that cannot be told are closed with 1012', () => {
  const sessions = createAlone({ closeAfterOutage: true })
  const told = openFake(sessions, {}, protocols.pgws)
  const plain = openFake(sessions)
  const writer = openFake(sessions, { mode: 'w', canRead: false })
  sessions.missed(1000, 2500)
  sessions.missed(3000, 3500)
  expect([told.codes, plain.codes, writer.codes]).toEqual([[], [1012], []])
  for (const { session } of [told, plain, writer]) sessions.closed(session, 1000, '')
})

test('the readers of a channel that is lost are closed with 1011, and no others', () => {
  const sessions = createAlone()
  const clients = [openFake(sessions), openFake(sessions, { channels: ['c'] }), openFake(sessions, { mode: 'w', canRead: false })]
  sessions.lost('b')
  expect(clients.map(({ codes }) => codes)).toEqual([[1011], [], []])
  for (const { session } of clients) sessions.closed(session, 1000, '')
})

test('all are closed with 1001 at the end, which waits for them and no longer than it may', async () => {
  const sessions = createAlone()
  const clients = [openFake(sessions), openFake(sessions)]
  const all = sessions.closeAll(60_000)
  for (const { session } of clients) sessions.closed(session, 1001, '')
  await all
  expect(clients.map(({ codes }) => codes)).toEqual([[1001], [1001]])
  const silent = openFake(sessions)
  await sessions.closeAll(1)
  sessions.closed(silent.session, 1006, '')
})
