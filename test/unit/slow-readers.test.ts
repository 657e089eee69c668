import { describe, expect, test } from 'bun:test'
import type { Sessions } from '../../lib/channels/session.ts'
import { createAlone as createSessions, type FakeClient, openFake, protocols } from '../support/sessions.ts'

const BUFFER = 16_384

const createAlone = (): Sessions => createSessions({ sendBufferBytes: BUFFER })

/** A reader that is open and takes nothing of what it is sent. */
const openStalled = (sessions: Sessions, ...channels: readonly string[]): FakeClient =>
  openFake(sessions, { channels, mode: 'r', canWrite: false }, protocols.pgws)

/** Hands a text to all of some readers, as the hub does, some times over. */
function publish(sessions: Sessions, readers: readonly FakeClient[], text: string, times: number): void {
  for (let sent = 0; sent < times; sent++) {
    for (const reader of readers) reader.write(text)
    sessions.handedOn(Buffer.byteLength(text), readers.length)
  }
}

describe('what may wait for a reader that takes nothing', () => {
  test.each([
    ['of a byte', 'x'],
    ['of 3 bytes a character', '☃'.repeat(300)],
    ['of 1,000 bytes', 'x'.repeat(1000)],
  ])('is half as much again as the limit, and a message, with messages %s', (_, text) => {
    const sessions = createAlone()
    const reader = openStalled(sessions, 'chat')
    publish(sessions, [reader], text, 50_000)
    expect(reader.codes).toEqual([1006])
    expect(reader.waits).toBeLessThanOrEqual(1.5 * BUFFER + 2 * Buffer.byteLength(text))
    expect(reader.waits).toBeGreaterThan(BUFFER)
  })
  test('is the same where all it gets is word of missed messages', () => {
    const sessions = createAlone()
    const reader = openStalled(sessions, ...Array.from({ length: 50 }, (_, index) => `chat-${index}`))
    for (let outage = 0; outage < 100; outage++) sessions.missed(1_800_000_000_000, 1_800_000_001_000)
    expect(reader.codes).toEqual([1006])
    expect(reader.waits).toBeLessThanOrEqual(1.5 * BUFFER + 400)
  })
  test('is no more in all where there are many readers', () => {
    const sessions = createAlone()
    const readers = Array.from({ length: 2000 }, () => openStalled(sessions, 'chat'))
    publish(sessions, readers, 'x'.repeat(1000), 100)
    for (const { codes, waits } of readers) {
      expect(codes).toEqual([1006])
      expect(waits).toBeLessThanOrEqual(1.5 * BUFFER + 2000)
    }
  })
})

test('a message to one of many readers seldom costs a look at all of them', () => {
  const sessions = createAlone()
  const [reader, ...others] = Array.from({ length: 2000 }, () => openStalled(sessions, 'chat'))
  for (let sent = 0; sent < 1000; sent++) sessions.handedOn(1000, 1)
  const looks = others[0]?.looks ?? 0
  expect(looks).toBeGreaterThan(0)
  // A look at a socket for each 32 bytes that went out, and no more.
  expect(looks * 2000).toBeLessThanOrEqual((1000 * 1004) / 32)
  expect(reader?.codes).toEqual([])
})
