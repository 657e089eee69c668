import { afterEach, expect, jest, test } from 'bun:test'
import type { Grant } from '../../lib/access/grant.ts'
import { createSessions, type Session } from '../../lib/channels/session.ts'
import { createLog } from '../../lib/log.ts'
import { createMetrics } from '../../lib/metrics.ts'
import type { Socket } from '../../lib/runtime/contract.ts'

afterEach(() => void jest.useRealTimers())

/** A client that is open, and the codes that the server closed it with. Whether the broker has room is the test's to say. */
function open(given: Partial<Grant>, hasRoom = true) {
  const sent: unknown[] = []
  const codes: number[] = []
  const sessions = createSessions({
    hub: { join: () => undefined, leave: () => undefined, deliver: () => undefined },
    broker: {
      publish: (messages) => {
        if (hasRoom) sent.push(...messages)
        return hasRoom
      },
    },
    meta: { opened: () => undefined, closed: () => undefined, restored: () => undefined },
    metrics: createMetrics(),
    log: createLog({ write: () => undefined }),
    forwardClaims: undefined,
    logClaim: undefined,
    maxMessagesPerSecond: Number.POSITIVE_INFINITY,
    sendBufferBytes: 1_000_000,
    closeAfterOutage: false,
  })
  const { session } = sessions.create(
    {
      channels: ['a', 'b'],
      mode: 'rw',
      canRead: true,
      canWrite: true,
      claims: '{}',
      expiresAt: Number.POSITIVE_INFINITY,
      ...given,
    },
    false,
    '127.0.0.1',
  )
  const socket: Socket<Session> = {
    data: session,
    send: () => undefined,
    subscribe: () => undefined,
    ping: () => undefined,
    getBufferedAmount: () => 0,
    close: (code) => codes.push(code),
    terminate: () => codes.push(1006),
  }
  sessions.open(socket)
  return {
    say: (text: string) => sessions.message(socket, text),
    sent,
    codes,
    [Symbol.dispose]: () => sessions.close(socket, 1000, ''),
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
