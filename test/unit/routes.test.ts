import { expect, test } from 'bun:test'
import type { Authenticator } from '../../lib/access/authenticator.ts'
import type { Sessions } from '../../lib/channels/session.ts'
import { createEventStreams } from '../../lib/doors/event-stream.ts'
import { createRoutes } from '../../lib/doors/routes.ts'
import { createProtocols } from '../../lib/doors/websocket.ts'
import { createLog } from '../../lib/log.ts'
import { createMetrics } from '../../lib/metrics.ts'

/** Routes with a part that fails, which no request can make a real one do. */
function routes({ verify = () => ({ refused: 'KEY_UNKNOWN' }) }: { verify?: Authenticator['verify'] }) {
  const lines: string[] = []
  const answer = createRoutes({
    authenticator: { verify, replace: () => undefined, stop: () => undefined },
    authority: undefined,
    allowedOrigins: undefined,
    maxSubscriptions: 1000,
    maxConnections: 1,
    history: undefined,
    trustedProxies: [],
    // Nothing that these requests reach asks it.
    sessions: {} as Sessions,
    protocols: createProtocols(() => undefined),
    eventStreams: createEventStreams(),
    post: () => undefined,
    maxMessagesPerSecond: Number.POSITIVE_INFINITY,
    messageBytes: 1000,
    metrics: createMetrics(),
    log: createLog({ write: (line) => lines.push(line) }),
    product: 'server/1',
    admission: () => undefined,
    rootPath: import.meta.dir,
    fileBody: () => {
      throw new Error('out of order')
    },
  })
  const ask = async (path: string, headers: Record<string, string> = {}) => {
    const answered = await answer(new Request(`http://localhost${path}`, { headers }), {
      upgrade: () => false,
      address: () => '',
      hold: () => undefined,
      stream: () => new Response(),
    })
    return { status: answered.status, text: await answered.text(), server: answered.headers.get('Server'), lines }
  }
  return ask
}

const handshake = { Host: 'localhost', Upgrade: 'websocket', Connection: 'Upgrade' }

const fault = {
  status: 500,
  text: 'Internal error',
  server: 'server/1',
  lines: ['error: request failed reason="out of order"'],
}

test('a fault in an upgrade is an internal error that says nothing, and a log line', async () => {
  const ask = routes({
    verify: () => {
      throw new Error('out of order')
    },
  })
  expect(await ask('/chat/token', handshake)).toEqual(fault)
})

test('a fault in an upgrade that waits is an internal error, too', async () => {
  const ask = routes({ verify: () => Promise.reject(new Error('out of order')) })
  expect(await ask('/chat/token', handshake)).toEqual(fault)
})

test('a fault in serving a file is an internal error, too', async () => {
  expect(await routes({})('/routes.test.ts')).toEqual(fault)
})
