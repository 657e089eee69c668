import { describe, expect, test } from 'bun:test'
import type { Grant } from '../../lib/access/grant.ts'
import { createSessions, type Session, type Sessions } from '../../lib/channels/session.ts'
import { createMetrics } from '../../lib/metrics.ts'
import type { Socket } from '../../lib/runtime/contract.ts'

const BUFFER = 16_384
const nothing = (): undefined => undefined

/** The sessions alone: their sockets are the tests' own, which say what waits for them. */
function createAlone(): Sessions {
  return createSessions({
    hub: { join: nothing, leave: nothing, deliver: nothing },
    broker: { publish: () => true },
    meta: { opened: nothing, closed: nothing, restored: nothing },
    metrics: createMetrics(),
    log: { error: nothing, warning: nothing, info: nothing, debug: nothing },
    forwardClaims: undefined,
    logClaim: undefined,
    maxMessagesPerSecond: Number.POSITIVE_INFINITY,
    sendBufferBytes: BUFFER,
    closeAfterOutage: false,
  })
}

interface Stalled extends Socket<Session> {
  /** Bytes that wait, for it takes none. */
  waits: number
  looks: number
  isDropped: boolean
}

/** A socket that is open and takes nothing of what it is sent. */
function openStalled(sessions: Sessions, ...channels: readonly string[]): Stalled {
  const grant: Grant = { channels, mode: 'r', canRead: true, canWrite: false, claims: '{}', expiresAt: Number.POSITIVE_INFINITY }
  const socket: Stalled = {
    data: sessions.create(grant, true, '127.0.0.1').session,
    waits: 0,
    looks: 0,
    isDropped: false,
    send: (text) => {
      if (!socket.isDropped) socket.waits += 4 + Buffer.byteLength(text)
    },
    subscribe: nothing,
    ping: nothing,
    getBufferedAmount: () => {
      socket.looks++
      return socket.waits
    },
    close: nothing,
    terminate: () => {
      socket.isDropped = true
      sessions.close(socket, 1006, '')
    },
  }
  sessions.open(socket)
  return socket
}

/** Hands a text to all of some readers, as the hub does, some times over. */
function publish(sessions: Sessions, readers: readonly Stalled[], text: string, times: number): void {
  for (let sent = 0; sent < times; sent++) {
    for (const reader of readers) reader.send(text)
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
    expect(reader.isDropped).toBe(true)
    expect(reader.waits).toBeLessThanOrEqual(1.5 * BUFFER + 2 * Buffer.byteLength(text))
    expect(reader.waits).toBeGreaterThan(BUFFER)
  })
  test('is the same where all it gets is word of missed messages', () => {
    const sessions = createAlone()
    const reader = openStalled(sessions, ...Array.from({ length: 50 }, (_, index) => `chat-${index}`))
    for (let outage = 0; outage < 100; outage++) sessions.missed(1_800_000_000_000, 1_800_000_001_000)
    expect(reader.isDropped).toBe(true)
    expect(reader.waits).toBeLessThanOrEqual(1.5 * BUFFER + 400)
  })
  test('is no more in all where there are many readers', () => {
    const sessions = createAlone()
    const readers = Array.from({ length: 2000 }, () => openStalled(sessions, 'chat'))
    publish(sessions, readers, 'x'.repeat(1000), 100)
    for (const { isDropped, waits } of readers) {
      expect(isDropped).toBe(true)
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
  expect(reader?.isDropped).toBe(false)
})
