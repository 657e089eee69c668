/** Owns sessions for unit tests: the real ones, with doors, hub and broker of the test's own. */
import type { Grant } from '../../lib/access/grant.ts'
import type { Client, Protocol } from '../../lib/channels/client.ts'
import type { Beginning } from '../../lib/channels/reading.ts'
import { createSessions, type Session, type Sessions, type SessionsOptions } from '../../lib/channels/session.ts'
import { jsonCommands, jsonMessage } from '../../lib/doors/command.ts'
import { createMetrics } from '../../lib/metrics.ts'
import { closing, NOTIFICATION_BYTES, refuse } from '../../lib/refusal.ts'

const nothing = (): undefined => undefined

export const protocols = {
  plain: {
    name: 'plain',
    form: { render: (_, text) => text, topic: String, publish: nothing },
    tell: undefined,
    commands: undefined,
  },
  pgws: {
    name: 'pgws',
    form: { render: (_, text) => text, topic: String, publish: nothing },
    tell: JSON.stringify,
    commands: undefined,
  },
  json: {
    name: 'pgws.json',
    form: { render: jsonMessage, topic: String, publish: nothing },
    tell: JSON.stringify,
    commands: jsonCommands,
  },
} as const satisfies Record<string, Protocol>

/** Sessions that nobody else has a part in. */
export const createAlone = (options: Partial<SessionsOptions> = {}): Sessions =>
  createSessions({
    hub: { join: nothing, leave: nothing, readAlone: nothing, readTogether: nothing, deliver: nothing },
    broker: { publish: () => true, history: undefined },
    isKept: () => false,
    limitOf: () => NOTIFICATION_BYTES,
    meta: { opened: nothing, closed: nothing, restored: nothing },
    metrics: createMetrics(),
    log: { error: nothing, warning: nothing, info: nothing, debug: nothing },
    forwardClaims: undefined,
    logClaim: undefined,
    maxSubscriptions: 1000,
    authorize: () => refuse('TOKEN_MALFORMED'),
    maxMessagesPerSecond: Number.POSITIVE_INFINITY,
    authority: undefined,
    reviewEvery: 60_000,
    sendBufferBytes: 1_000_000,
    closeAfterOutage: false,
    ...options,
  })

/** Everything, for ever. */
export const fullGrant: Grant = {
  channels: ['a', 'b'],
  mode: 'rw',
  named: undefined,
  role: undefined,
  canRead: true,
  canWrite: true,
  claims: '{}',
  expiresAt: Number.POSITIVE_INFINITY,
}

export interface FakeClient extends Client {
  readonly session: Session
  /** What it was written. */
  readonly texts: string[]
  /** The codes that it was ended with; 1006 where it was dropped. */
  readonly codes: number[]
  readonly joined: string[]
  /** Bytes that wait for it, which takes nothing. */
  waits: number
  /** How often it was asked what waits. */
  looks: number
}

/**
 * A client that is open.
 *
 * @param joined is told of each channel that it joins, and how what is published there reaches it.
 */
export function openFake(
  sessions: Sessions,
  given: Partial<Grant> = {},
  protocol: Protocol = protocols.plain,
  beginning?: Beginning,
  joined: (channel: string, write: (text: string) => void) => void = nothing,
): FakeClient {
  const { session } = sessions.create({ ...fullGrant, ...given }, protocol, '127.0.0.1', beginning)
  const client: FakeClient = {
    session,
    texts: [],
    codes: [],
    joined: [],
    waits: 0,
    looks: 0,
    waiting() {
      client.looks++
      return client.waits
    },
    write(text) {
      client.texts.push(text)
      if (client.codes.length === 0) client.waits += 4 + Buffer.byteLength(text)
    },
    writeAll: (texts) => texts.forEach(client.write),
    join(channel) {
      client.joined.push(channel)
      joined(channel, (text) => client.texts.push(text))
    },
    ping: () => true,
    leave: (channel) => void (client.joined.includes(channel) && client.joined.splice(client.joined.indexOf(channel), 1)),
    end: (closure) => client.codes.push(closing(closure).code),
    drop() {
      client.codes.push(1006)
      sessions.closed(session, 1006, '')
    },
  }
  sessions.open(session, client)
  return client
}
