import { expect, test } from 'bun:test'
import { type Answering, createAnswers } from '../../lib/channels/answers.ts'
import type { Client } from '../../lib/channels/client.ts'
import { UNANSWERED_PUBLISHES } from '../../lib/refusal.ts'
import { protocols } from '../support/sessions.ts'

/** The publishes of a client, what it was written, each time it was, and how often it was too much. */
function publishes() {
  const written: string[][] = []
  const counts = { overwhelmed: 0, bytes: 0 }
  const client: Pick<Client, 'write' | 'writeAll'> = {
    write: (text) => void written.push([text]),
    writeAll: (texts) => void written.push([...texts]),
  }
  // No more of a client is used.
  const session: Answering = { client: client as Client, protocol: protocols.json, closure: undefined }
  const made = createAnswers({
    handedOn: (bytes) => {
      counts.bytes += bytes
    },
    overwhelmed: () => void counts.overwhelmed++,
  })(session)
  const short = (text: string): string => {
    const { id, event, code } = JSON.parse(text)
    return `${id} ${code ?? event}`
  }
  const answers = async (): Promise<string[]> => {
    await Promise.resolve()
    return written.splice(0).flat().map(short)
  }
  return { ...made, session, answers, written, counts }
}

test('what is refused at once waits for what is ahead of it, and no longer', async () => {
  const { add, refuse, settled, answers } = publishes()
  const refused = (id: number) => {
    const publish = add(id, 'a', false)
    if (publish) refuse(publish, 'TOO_LARGE')
  }
  refused(0)
  add(1, 'a', false)
  refused(2)
  add(3, 'a', false)
  refused(4)
  expect(await answers()).toEqual(['0 TOO_LARGE'])
  settled.others('committed')
  expect(await answers()).toEqual(['1 Published', '2 TOO_LARGE'])
  settled.others({ code: '22P05', reason: 'no such character' })
  expect(await answers()).toEqual(['3 REFUSED_BY_DATABASE', '4 TOO_LARGE'])
})

test('a message that is kept and one that is not are each answered for themselves, in the order of the publishes', async () => {
  const { add, settled, answers } = publishes()
  for (const [id, isKept] of [false, true, true, false].entries()) add(id, 'a', isKept)
  settled.kept('committed')
  settled.kept({ code: '23514', reason: 'no' })
  expect(await answers()).toEqual([])
  settled.others('committed')
  expect(await answers()).toEqual(['0 Published', '1 Published', '2 REFUSED_BY_DATABASE'])
  settled.others('committed')
  expect(await answers()).toEqual(['3 Published'])
})

test('the answers of a tick go out together, and count as what was handed on', async () => {
  const { add, settled, answers, written, counts } = publishes()
  for (const id of [1, 2, 3]) add(id, 'ü', false)
  for (let index = 0; index < 3; index++) settled.others('committed')
  await Promise.resolve()
  expect(written).toHaveLength(1)
  expect(counts.bytes).toBe(Buffer.byteLength(written.flat().join('')))
  expect(await answers()).toHaveLength(3)
})

test('a client that is closed is answered no more', async () => {
  const { add, settled, session, answers } = publishes()
  add(1, 'a', false)
  settled.others('committed')
  session.closure = 'SHUTDOWN'
  expect(await answers()).toEqual([])
})

test('many at once keep their order however they are settled', async () => {
  const { add, refuse, settled, answers } = publishes()
  const seen: string[] = []
  let next = 0
  const open = { kept: 0, others: 0 }
  for (let round = 0; round < 200; round++) {
    for (let index = 0; index < 37; index++) {
      const id = next++
      const publish = add(id, 'a', id % 3 === 0)
      if (publish && id % 7 === 0) refuse(publish, 'TOO_LARGE')
      else open[id % 3 === 0 ? 'kept' : 'others']++
    }
    const kinds = round % 2 ? (['kept', 'others'] as const) : (['others', 'kept'] as const)
    for (const kind of kinds) for (; open[kind] > round % 11; open[kind]--) settled[kind]('committed')
    seen.push(...(await answers()))
  }
  for (const kind of ['kept', 'others'] as const) for (; open[kind] > 0; open[kind]--) settled[kind]('committed')
  seen.push(...(await answers()))
  expect(seen).toEqual(Array.from({ length: next }, (_, id) => `${id} ${id % 7 === 0 ? 'TOO_LARGE' : 'Published'}`))
})

test('above the limit of unanswered publishes more are refused, in their order, and above twice the limit the client is closed', async () => {
  const { add, settled, answers, counts } = publishes()
  for (let id = 0; id < UNANSWERED_PUBLISHES; id++) expect(add(id, 'a', false)).toBeDefined()
  for (let id = 0; id < UNANSWERED_PUBLISHES; id++) expect(add('more', 'a', false)).toBeUndefined()
  expect([await answers(), counts.overwhelmed]).toEqual([[], 0])
  add('most', 'a', false)
  expect(counts.overwhelmed).toBe(1)
  for (let id = 0; id < UNANSWERED_PUBLISHES; id++) settled.others('committed')
  const all = await answers()
  expect(all[UNANSWERED_PUBLISHES - 1]).toBe(`${UNANSWERED_PUBLISHES - 1} Published`)
  expect(all.slice(UNANSWERED_PUBLISHES)).toEqual([
    ...Array(UNANSWERED_PUBLISHES).fill('more TOO_MANY_UNANSWERED'),
    'most TOO_MANY_UNANSWERED',
  ])
  expect(add('again', 'a', false)).toBeDefined()
})
