import { expect, test } from 'bun:test'
import { createKeptLedger, type Kept, type KeptLedger, type KeptVerdict } from '../support/kept-ledger.ts'

/** A journal of what two publishers published, in this order, on one channel. */
function createTruth(ledger: KeptLedger, publishers: readonly string[]): Kept[] {
  const texts = publishers.map((publisher) => ledger.next(publisher))
  ledger.committed(texts)
  return texts.map((text, index) => ({ number: index + 1, channel: 'chat', text }))
}

/** What is found where a reader that is to get all gets these of five messages, by their places. */
function foundOf(places: readonly number[], alter: (ledger: KeptLedger, truth: Kept[]) => void = () => undefined): KeptVerdict {
  const ledger = createKeptLedger()
  const truth = createTruth(ledger, ['a', 'b', 'a', 'b', 'a'])
  const view = ledger.view(['chat'], 0)
  for (const place of places) view.receive(truth[place]?.text ?? 'strange:0')
  view.complete()
  alter(ledger, truth)
  return ledger.judge(truth)
}

/** How many findings there are of each kind. */
const numbers = ({ missed, twice, disordered, wrong }: KeptVerdict): readonly number[] =>
  [missed, twice, disordered, wrong].map(({ length }) => length)

test.each([
  ['all in their order', [0, 1, 2, 3, 4], [0, 0, 0, 0]],
  ['all but one in the middle', [0, 1, 3, 4], [1, 0, 0, 0]],
  ['all but the last', [0, 1, 2, 3], [1, 0, 0, 0]],
  ['one twice', [0, 1, 1, 2, 3, 4], [0, 1, 0, 0]],
  ['two in another order', [0, 2, 1, 3, 4], [0, 0, 1, 0]],
  ['one that is none', [0, 1, 2, 3, 4, 9], [0, 0, 0, 1]],
])('of a reader that got %s is found what is so', (_, places, expected) => {
  expect(numbers(foundOf(places))).toEqual(expected)
})

test('a message that was committed and is not in the journal is missed, unless what accepted it was killed', () => {
  const all = [0, 1, 2, 3, 4]
  const home = {}
  const publish = (ledger: KeptLedger): void => ledger.committed([ledger.next('c')], home)
  expect(numbers(foundOf(all, publish))).toEqual([1, 0, 0, 0])
  const killed = (ledger: KeptLedger): void => {
    publish(ledger)
    ledger.abandon(home)
  }
  expect(numbers(foundOf(all, killed))).toEqual([0, 0, 0, 0])
})

test('a message that is twice in the journal, behind a later one, or was rolled back is found', () => {
  const alter = (ledger: KeptLedger, truth: Kept[]): void => {
    const [first, , third] = truth
    if (!first || !third) throw new Error('no truth')
    truth.push({ ...third, number: 6, channel: 'other' })
    const undone = ledger.next('d')
    ledger.rolledBack([undone])
    truth.push({ number: 7, channel: 'other', text: undone })
  }
  expect(numbers(foundOf([0, 1, 2, 3, 4], alter))).toEqual([0, 1, 0, 1])
  const ledger = createKeptLedger()
  const texts = [ledger.next('a'), ledger.next('a')]
  ledger.committed(texts)
  expect(numbers(ledger.judge(texts.toReversed().map((text, index) => ({ number: index, channel: 'x', text }))))).toEqual([
    0, 0, 1, 0,
  ])
})

test('a reader that left is held to all up to the last that it got, and one that was told of a loss is wrong', () => {
  const ledger = createKeptLedger()
  const truth = createTruth(ledger, ['a', 'a', 'a'])
  const left = ledger.view(['chat'], 0)
  left.receive(truth[1]?.text ?? '')
  const told = ledger.view(['chat'], 3)
  told.told()
  expect(numbers(ledger.judge(truth))).toEqual([1, 0, 0, 1])
})
