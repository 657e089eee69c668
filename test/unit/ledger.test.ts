import { expect, test } from 'bun:test'
import { createLedger, type Ledger, type Verdict, type View } from '../support/ledger.ts'
import type { Committed } from '../support/witness.ts'

interface Scene {
  readonly ledger: Ledger
  /** What is in the database; a message is committed a second after the one before it. */
  readonly truth: Committed[]
  /** A reader that was there before the first message. */
  readonly view: View
  commit(text: string): void
  missed(from: number, to: number, channel?: string): string
}

const text = (payload: string, stamp = 1): string =>
  JSON.stringify({ claims: { message_delivered_at: stamp }, event: 'WebsocketMessage', payload, channel: 'chat' })

/** The messages `a:0` to `a:4`, sent and seen to be committed. */
function play(committed: readonly string[], act: (scene: Scene) => void): Verdict {
  const ledger = createLedger()
  const view = ledger.view(['chat'])
  const truth: Committed[] = []
  const began = Date.now()
  for (let index = 0; index < 5; index++) ledger.next('a')
  const commit = (notification: string): void => {
    truth.push({ channel: 'postgres-websockets-listener', notification, at: began + 1000 * (truth.length + 1) })
  }
  for (const payload of committed) commit(text(payload))
  const missed = (from: number, to: number, channel = 'chat'): string =>
    JSON.stringify({ event: 'MessagesMissed', channel, from: began / 1000 + from, to: began / 1000 + to })
  act({ ledger, truth, view, commit, missed })
  return ledger.judge(truth)
}

/** A mark behind everything: the reader is held to all. */
function end({ ledger, view, commit }: Scene): void {
  const mark = ledger.mark('chat')
  commit(mark)
  view.receive(mark)
  view.due([mark])
}

const all = ['a:0', 'a:1', 'a:2', 'a:3', 'a:4']
const clean = { lost: [], changed: [], disordered: [] }

test('a reader that got everything is whole, and copies count once', () => {
  const verdict = play(['a:0', 'a:1', 'a:2', 'a:1', 'a:2', 'a:3', 'a:4'], (scene) => {
    for (const { notification } of scene.truth) scene.view.receive(notification)
    end(scene)
  })
  expect(verdict).toMatchObject({ ...clean, delivered: 8, duplicated: 2, told: 0 })
})

test('a message whose commit lies in a window of its channel, ahead of the next one, was told', () => {
  const verdict = play(all, (scene) => {
    for (const item of [text('a:0'), scene.missed(1.5, 3.5), text('a:3'), text('a:4')]) scene.view.receive(item)
    end(scene)
  })
  expect(verdict).toMatchObject({ ...clean, told: 2 })
})

test.each([
  ['of another channel', (scene: Scene) => [text('a:0'), scene.missed(1.5, 3.5, 'other'), text('a:3'), text('a:4')]],
  ['that ends before the commit', (scene: Scene) => [text('a:0'), scene.missed(1.5, 2.5), text('a:3'), text('a:4')]],
  ['that begins behind the commit', (scene: Scene) => [text('a:0'), scene.missed(2.5, 3.5), text('a:3'), text('a:4')]],
  ['that comes behind the next message', (scene: Scene) => [text('a:0'), text('a:3'), scene.missed(1.5, 3.5), text('a:4')]],
])('a window %s tells nothing', (_, came) => {
  const verdict = play(all, (scene) => {
    for (const item of came(scene)) scene.view.receive(item)
    end(scene)
  })
  expect(verdict.lost).toHaveLength(1)
  expect(verdict.lost[0]).toContain('missed on chat')
})

test('who misses the last messages is seen by its mark, and not held to them without one', () => {
  const first = (scene: Scene): void => scene.view.receive(text('a:0'))
  expect(play(all, first)).toMatchObject(clean)
  const held = play(all, (scene) => {
    first(scene)
    end(scene)
  })
  expect(held.lost).toHaveLength(1)
})

test('an order that differs from that of the commits is disorder at the reader', () => {
  const verdict = play(all, ({ view }) => {
    for (const payload of ['a:0', 'a:2', 'a:1']) view.receive(text(payload))
  })
  expect(verdict.disordered).toHaveLength(1)
})

test.each([
  ['a hole in what was committed is a loss', ['a:0', 'a:1', 'a:3'], 'lost'],
  ['an exchange in what was committed is disorder', ['a:0', 'a:2', 'a:1', 'a:3'], 'disordered'],
  ['batches sent again in reverse are disorder', ['a:0', 'a:1', 'a:2', 'a:3', 'a:2', 'a:3', 'a:0', 'a:1', 'a:4'], 'disordered'],
] as const)('%s', (_, committed, finding) => {
  expect(play(committed, () => undefined)[finding]).not.toBeEmpty()
})

test('what was accepted is held to its end, unless who accepted it was killed', () => {
  const home = {}
  expect(play(['a:0', 'a:1'], ({ ledger }) => ledger.settle('a', home)).lost).toHaveLength(1)
  const killed = play(['a:0', 'a:1'], ({ ledger }) => {
    ledger.settle('a', home)
    ledger.abandon(home)
  })
  expect(killed).toMatchObject(clean)
})

test('a copy with another stamp, and a text that nobody committed, are changes', () => {
  expect(play(all, ({ commit }) => commit(text('a:4', 2))).changed).toHaveLength(1)
  expect(play(['a:0'], ({ view }) => view.receive(text('a:1'))).changed).toHaveLength(1)
})
