import { expect, test } from 'bun:test'
import type { History, Page } from '../../lib/channels/broker.ts'
import type { Form } from '../../lib/channels/client.ts'
import { createHub } from '../../lib/channels/hub.ts'
import type { Beginning } from '../../lib/channels/reading.ts'
import { createMetrics } from '../../lib/metrics.ts'
import { within } from '../../lib/waiting.ts'
import { createAlone, openFake, protocols } from '../support/sessions.ts'
import { until } from '../support/until.ts'

/** A history that a test writes: what is behind `memory` is at hand, and anything else is asked for. */
function createHistory() {
  const entries: Page['entries'][number][] = []
  const asked: (() => void)[] = []
  const made = { memory: 0, kept: 0, isAway: false, pageSize: 3 }
  const head = (): number => entries.at(-1)?.number ?? 0
  function page(channels: readonly string[], number: number, isAtHand: boolean): Page {
    const found = entries.filter((entry) => entry.number > number && channels.includes(entry.channel)).slice(0, made.pageSize)
    const isWhole = found.length < made.pageSize
    return { entries: found, upTo: isWhole ? head() : (found.at(-1)?.number ?? number), isEnd: isWhole && isAtHand }
  }
  const history: History = {
    get head() {
      return head()
    },
    get kept() {
      return made.kept
    },
    after(channels, number) {
      if (!made.isAway && number >= made.memory) return page(channels, number, true)
      return new Promise((resolve, reject) =>
        asked.push(() => {
          if (made.isAway) reject(new Error('away'))
          else resolve(number + 1 < made.kept ? 'lost' : page(channels, number, false))
        }),
      )
    },
    last: () => 0,
    find: () => 0,
    position: (number) => `e-${number}`,
  }
  return { history, entries, made, answer: () => asked.shift()?.() }
}

/** Readers of one hub, with that history. A reader's texts are `TEXT@POSITION`, as they come. */
function createReaders(sendBufferBytes = 1_000_000) {
  const kept = createHistory()
  const live = new Map<string, ((text: string) => void)[]>()
  const form: Form = {
    render: (_, text, position) => `${text}@${position ?? 'live'}`,
    topic: (channel) => channel,
    publish: (channel, text) => {
      for (const write of live.get(channel) ?? []) write(text)
    },
  }
  const hub = createHub({
    broker: { follow: () => undefined, unfollow: () => undefined },
    metrics: createMetrics(),
    handedOn: () => undefined,
  })
  const sessions = createAlone({ hub, broker: { publish: () => true, history: kept.history }, sendBufferBytes })
  function resume(beginning: Beginning, protocol = { ...protocols.pgws, form }) {
    const client = openFake(sessions, { channels: ['a', 'b'] }, protocol, beginning, (channel, write) =>
      live.set(channel, [...(live.get(channel) ?? []), write]),
    )
    return client
  }
  let number = 0
  /** Publishes on the way of the journal: history has it, and who reads live gets it. */
  function publish(channel: string, text: string): void {
    kept.entries.push({ number: ++number, channel, text })
    hub.deliver(channel, text, `e-${number}`)
  }
  const { made, answer } = kept
  return { made, answer, hub, sessions, resume, publish }
}

const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve()
}

test('a reader gets what lies behind its position, in order, and then what is live', async () => {
  const { publish, resume } = createReaders()
  for (const text of ['1', '2', '3', '4', '5', '6', '7']) publish(text === '4' ? 'other' : 'a', text)
  const reader = resume(2)
  await settled()
  publish('b', '8')
  expect(reader.texts).toEqual(['3@e-3', '5@e-5', '6@e-6', '7@e-7', '8@e-8'])
})

test('a reader joins those who read live in the tick of its last page', async () => {
  const { publish, resume, made } = createReaders()
  made.pageSize = 10
  publish('a', '1')
  queueMicrotask(() => publish('a', '2'))
  const reader = resume(0)
  await settled()
  expect(reader.texts).toEqual(['1@e-1', '2@e-2'])
})

test('what is published while history is read comes once, behind it', async () => {
  const { publish, resume, made, answer } = createReaders()
  for (const text of ['1', '2', '3', '4', '5']) publish('a', text)
  made.memory = 3
  const reader = resume(0)
  publish('a', '6')
  expect(reader.texts).toEqual([])
  answer()
  publish('a', '7')
  await settled()
  publish('a', '8')
  expect(reader.texts).toEqual(['1', '2', '3', '4', '5', '6', '7', '8'].map((text) => `${text}@e-${text}`))
})

test('what is in no history reaches a reader that resumes at once, and only once', async () => {
  const { publish, resume, made, answer, hub } = createReaders()
  publish('a', '1')
  made.memory = 1
  const reader = resume(0)
  hub.deliver('a', 'notified')
  expect(reader.texts).toEqual(['notified@live'])
  answer()
  await settled()
  hub.deliver('b', 'later')
  expect(reader.texts).toEqual(['notified@live', '1@e-1', 'later@live'])
})

test('a reader whose history was dropped meanwhile is told so for each channel, and reads on live', async () => {
  const { publish, resume, made, answer } = createReaders()
  publish('a', '1')
  Object.assign(made, { memory: 5, kept: 5 })
  const reader = resume(0)
  answer()
  await settled()
  publish('a', '2')
  expect(reader.texts.map((text) => (text.startsWith('{') ? JSON.parse(text) : text))).toEqual([
    { event: 'MessagesMissed', channel: 'a', from: null, to: expect.any(Number) },
    { event: 'MessagesMissed', channel: 'b', from: null, to: expect.any(Number) },
    '2@e-2',
  ])
})

test('a reader that is slow is written no more than it has room for, and all of it in the end', async () => {
  const { publish, resume } = createReaders(40)
  for (let text = 1; text <= 20; text++) publish('a', `${text}`)
  const reader = resume(0)
  expect(reader.texts.length).toBeLessThan(3)
  for (let drains = 0; drains < 20 && reader.texts.length < 20; drains++) {
    reader.waits = 0
    await within(
      200,
      until(() => reader.waits > 0 || reader.texts.length === 20, 1),
    )
  }
  expect(reader.texts).toEqual(Array.from({ length: 20 }, (_, index) => `${index + 1}@e-${index + 1}`))
})

test('a reader that is dropped while it is written history, or told that it is gone, joins nothing', async () => {
  const { publish, resume, made, answer } = createReaders(40)
  Object.assign(made, { memory: 1, pageSize: 1 })
  publish('a', '1')
  publish('a', '2'.repeat(100))
  const [reader, told] = [resume(0), resume('lost')]
  answer()
  made.pageSize = 3
  // It is dropped as the last of its history is written, in the tick in which it would join.
  reader.write = (text) => {
    if (text.startsWith('2')) reader.waits = 1000
  }
  await settled()
  expect([reader.codes, told.codes]).toEqual([[1006], [1006]])
  expect([reader.joined, told.joined]).toEqual([[], []])
})

test('history that cannot be read is asked for again, and nobody who left is written to', async () => {
  const { publish, resume, made, answer, sessions, hub } = createReaders()
  publish('a', '1')
  made.isAway = true
  const [stays, leaves] = [resume(0), resume(0)]
  sessions.closed(leaves.session, 1000, '')
  answer()
  answer()
  made.isAway = false
  hub.deliver('a', 'notified')
  await within(
    2000,
    until(() => stays.texts.length > 1),
  )
  expect(stays.texts).toEqual(['notified@live', '1@e-1'])
  expect(leaves.texts).toEqual([])
})
