/** Owns messages that are posted: the body of a request is the text, and the answer says what became of it. */

import { type Grant, writable } from '../access/grant.ts'
import type { Rejection } from '../channels/broker.ts'
import type { Post, PostFault } from '../channels/post.ts'
import { createTokenRate } from '../channels/rate.ts'
import type { Session } from '../channels/session.ts'
import { isRefusal, type Refusal } from '../refusal.ts'
import type { Exchange, Handlers } from '../runtime/contract.ts'
import { inTick } from '../waiting.ts'
import type { Admission, Attempt } from './admission.ts'

export interface PostsOptions {
  readonly admission: Admission
  readonly post: Post
  readonly maxMessagesPerSecond: number
  /** A longer body is not read. */
  readonly messageBytes: number
  /** `postgres-websockets/VERSION` */
  readonly product: string
  /** Milliseconds after which a message that is neither committed nor refused is answered. Default 30,000. */
  readonly patience?: number
}

const PATIENCE = 30_000

/** Seconds that the runtime grants a request: as many, and what its body may take. */
const HELD = 60

/** Most characters of an `Idempotency-Key`. */
const KEY_LENGTH = 256

/** SQLSTATE of insufficient_privilege. */
const FORBIDDEN = '42501'

const PLAIN = { 'Content-Type': 'text/plain; charset=UTF-8', 'X-Content-Type-Options': 'nosniff' }

export const isPost = ({ method }: Request): boolean => method === 'POST'

export function createPosts({
  admission,
  post,
  maxMessagesPerSecond,
  messageBytes,
  product,
  patience = PATIENCE,
}: PostsOptions): Handlers<Session>['request'] {
  const isAbove = createTokenRate(maxMessagesPerSecond, () => performance.now())
  const headers = { Server: product }

  async function publish(attempt: Attempt, allowed: Grant | Refusal, exchange: Exchange<Session>): Promise<Response> {
    if (isRefusal(allowed)) return admission.reject(attempt, allowed.refused)
    if (writable(allowed).length === 0) return admission.reject(attempt, 'MODE_NOT_ALLOWED')
    if (isAbove(attempt.token ?? '')) return admission.reject(attempt, 'TOO_FAST')
    const key = attempt.request.headers.get('Idempotency-Key') || undefined
    if (key !== undefined && key.length > KEY_LENGTH) return admission.reject(attempt, 'KEY_TOO_LONG')
    exchange.hold(attempt.request, HELD)
    const body = await readBody(attempt.request, messageBytes)
    // It may have come slowly. The server may have begun to shut down meanwhile, and another decision have been taken.
    const still = await admission.decided(allowed)
    if (isRefusal(still)) return admission.reject(attempt, still.refused)
    if (writable(still).length === 0) return admission.reject(attempt, 'MODE_NOT_ALLOWED')
    const closed = admission.closed()
    const fault = closed ?? (typeof body === 'string' ? body : await outcome(still, body, key))
    if (fault === undefined) return new Response(null, { status: 204, headers })
    return typeof fault === 'string' ? admission.reject(attempt, fault) : rejection(fault)
  }

  function outcome(
    allowed: Grant,
    body: Uint8Array | undefined,
    key: string | undefined,
  ): Promise<PostFault | 'OUTCOME_UNKNOWN' | undefined> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve('OUTCOME_UNKNOWN'), patience)
      post(allowed, body, key, (fault) => {
        clearTimeout(timer)
        resolve(fault)
      })
    })
  }

  const rejection = ({ code, reason }: Rejection): Response =>
    new Response(reason, { status: code === FORBIDDEN ? 403 : 400, headers: { ...headers, ...PLAIN } })

  return (request, exchange) => {
    const attempt = admission.read(request, exchange.address(request), undefined, 'message')
    return inTick(admission.admit(attempt), (allowed) => publish(attempt, allowed, exchange))
  }
}

/** The body; undefined where it is too long. One whose length is not said is read until it is. */
async function readBody(request: Request, most: number): Promise<Uint8Array | 'BODY_INCOMPLETE' | undefined> {
  const length = request.headers.get('Content-Length')
  if (length !== null && Number(length) > most) return undefined
  try {
    if (length !== null) return new Uint8Array(await request.arrayBuffer())
    const chunks: Uint8Array[] = []
    let bytes = 0
    for await (const chunk of request.body ?? []) {
      bytes += chunk.length
      if (bytes > most) return undefined
      chunks.push(chunk)
    }
    return Buffer.concat(chunks)
  } catch {
    return 'BODY_INCOMPLETE'
  }
}
