/** Owns which requests become event streams. */

import { type Grant, readable } from '../access/grant.ts'
import type { Session, Sessions } from '../channels/session.ts'
import { isRefusal, type Refusal } from '../refusal.ts'
import type { Exchange, Handlers } from '../runtime/contract.ts'
import { inTick } from '../waiting.ts'
import type { Admission, Attempt } from './admission.ts'
import type { EventStreams, StreamKind } from './event-stream.ts'
import { readQuery } from './target.ts'

export interface StreamsOptions {
  readonly admission: Admission
  readonly sessions: Sessions
  readonly eventStreams: EventStreams
  /** `postgres-websockets/VERSION` */
  readonly product: string
}

/** `EventSource` asks for this type and no other. */
export const isStream = ({ method, headers }: Request): boolean =>
  (method === 'GET' || method === 'HEAD') && /(^|[,\s])text\/event-stream($|[;,\s])/i.test(headers.get('Accept') ?? '')

export function createStreams({ admission, sessions, eventStreams, product }: StreamsOptions): Handlers<Session>['request'] {
  const headers = {
    'Content-Type': 'text/event-stream',
    'Cache-Control': 'no-store',
    // nginx keeps what it reads until it has a buffer full, unless it is told not to.
    'X-Accel-Buffering': 'no',
    'X-Content-Type-Options': 'nosniff',
    // Nothing follows a stream, and a connection kept open would hold up a drain.
    Connection: 'close',
    Server: product,
  }

  const kindOf = ({ url }: Request): StreamKind =>
    readQuery(url)?.get('protocol') === 'pgws.json' ? eventStreams.objects : eventStreams.events

  function connect(attempt: Attempt, allowed: Grant | Refusal, exchange: Exchange<Session>): Response | Promise<Response> {
    if (isRefusal(allowed)) return admission.reject(attempt, allowed.refused)
    if (readable(allowed).length === 0) return admission.reject(attempt, 'MODE_NOT_ALLOWED')
    return inTick(admission.connect(attempt, allowed, kindOf(attempt.request).protocol), (session) =>
      answer(attempt, session, exchange),
    )
  }

  function answer(attempt: Attempt, session: Session | Refusal, exchange: Exchange<Session>): Response {
    if (isRefusal(session)) return admission.reject(attempt, session.refused)
    const { request } = attempt
    // It may have waited, and the server have begun to shut down meanwhile.
    const closed = admission.closed()
    if (closed || request.method === 'HEAD') sessions.discard(session)
    if (closed) return admission.reject(attempt, closed)
    if (request.method === 'HEAD') return new Response(null, { headers })
    return exchange.stream(request, headers, kindOf(request).open(session, sessions))
  }

  return (request, exchange) => {
    const attempt = admission.read(request, exchange.address(request), undefined, 'stream')
    return inTick(admission.admit(attempt), (allowed) => connect(attempt, allowed, exchange))
  }
}
