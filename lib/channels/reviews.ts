/** Owns that connected clients keep what they may only as long as the authority says so: it is asked again about each of them. */

import type { Decision, Grant } from '../access/grant.ts'
import { isMode } from '../access/grant.ts'
import type { ClosureCode } from '../refusal.ts'
import { inTick } from '../waiting.ts'
import type { Authority } from './authority.ts'
import type { Protocol } from './client.ts'

/** What each session keeps for this. */
export interface Reviewed {
  readonly grant: Grant
  readonly protocol: Protocol
  /** Milliseconds of the monotonic clock at which it is asked about again; `Infinity` for never, or while that is under way. */
  reviewAt: number
}

export interface ReviewsOptions<S> {
  /** The open ones. */
  readonly sessions: ReadonlySet<S>
  readonly authority: Authority
  /** Milliseconds between two reviews of one client. */
  readonly every: number
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  readonly isOpen: (session: S) => boolean
  /** A client lost something. */
  readonly withdrawn: () => void
  readonly close: (session: S, closure: ClosureCode) => void
  /** A client that sends commands lost some of its rights. */
  readonly narrow: (session: S) => void
}

export interface Reviews<S> {
  opened(session: S): void
  /** It goes on under another grant. */
  renewed(session: S): void
  /** A client is gone, and no longer among the open ones. */
  closed(): void
  /** Reviews every client at once. */
  all(): void
}

/** Looks for clients whose time has come, within an interval; and the longest time between two, in milliseconds. */
const LOOKS = 50
const LONGEST_LOOK = 1000

/** Milliseconds until it is tried again where the authority did not answer, and as many more at random. */
const RETRY = 2000

export function createReviews<S extends Reviewed>(options: ReviewsOptions<S>): Reviews<S> {
  const { sessions, authority, every, now, isOpen } = options
  let looks: ReturnType<typeof setInterval> | undefined
  /** They try again together, and are spread anew behind their answers. */
  const unanswered = new WeakSet<S>()
  /** At random, so that clients that came together are not asked about together. */
  const spread = (): number => now() + Math.random() * every

  function look(): void {
    const time = now()
    for (const session of sessions) if (session.reviewAt <= time) review(session)
  }

  /** @param next when it is asked about again behind this, where that time has not passed by then. */
  function review(session: S, next = now() + every): void {
    const { grant } = session
    const channels = [...(grant.rights?.keys() ?? [])]
    session.reviewAt = channels.length === 0 ? next : Number.POSITIVE_INFINITY
    if (channels.length === 0) return
    void inTick(authority.decide(grant, channels), (decisions) => {
      // A later grant has a review of its own.
      if (session.grant !== grant || !isOpen(session)) return
      session.reviewAt = decisions.includes('AUTHORITY_UNAVAILABLE') ? retry(session) : answered(session, next)
      settle(session, channels, decisions)
    })
  }

  function retry(session: S): number {
    unanswered.add(session)
    return now() + Math.min(every, RETRY * (1 + Math.random()))
  }

  function answered(session: S, next: number): number {
    if (unanswered.delete(session)) return spread()
    return next > now() ? next : now() + every
  }

  function settle(session: S, channels: readonly string[], decisions: readonly Decision[]): void {
    const lost = channels.filter((channel, index) => loses(session, channel, decisions[index]))
    for (const _ of lost) options.withdrawn()
    if (session.protocol.name !== 'pgws.json') {
      // Its channels are fixed, and so are its rights.
      if (lost.length > 0) options.close(session, 'ACCESS_WITHDRAWN')
      return
    }
    for (const [index, channel] of channels.entries()) {
      const decision = decisions[index]
      if (isMode(decision)) session.grant.rights?.set(channel, decision)
      else if (decision !== 'AUTHORITY_UNAVAILABLE') session.grant.rights?.delete(channel)
    }
    if (lost.length > 0) options.narrow(session)
  }

  return {
    opened(session) {
      looks ??= setInterval(look, Math.min(LONGEST_LOOK, Math.ceil(every / LOOKS)))
      // What was decided is remembered for as long as an upgrade takes. If not, something else may have been decided since.
      review(session, spread())
    },
    renewed: (session) => review(session),
    closed() {
      if (sessions.size > 0) return
      clearInterval(looks)
      looks = undefined
    },
    all() {
      // One that is under way is asked again by the authority.
      for (const session of sessions) if (session.reviewAt !== Number.POSITIVE_INFINITY) review(session, session.reviewAt)
    },
  }
}

/** Whether a client may less on a channel than until now. */
function loses({ grant, protocol }: Reviewed, channel: string, decision: Decision | undefined): boolean {
  if (decision === undefined || decision === 'AUTHORITY_UNAVAILABLE') return false
  const had = grant.rights?.get(channel) ?? ''
  const has = isMode(decision) ? decision : ''
  const isLost = (right: 'r' | 'w'): boolean => had.includes(right) && !has.includes(right)
  return (grant.canRead && isLost('r')) || (grant.canWrite && protocol.name !== 'sse' && isLost('w'))
}
