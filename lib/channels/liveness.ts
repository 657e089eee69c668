/** Owns which clients still answer and are still allowed: pings, pongs, and the expiry of tokens. */
import type { Client } from './client.ts'

/** What each session keeps for this. */
export interface Lively {
  readonly client: Pick<Client, 'ping'>
  /** UNIX time in milliseconds; `Infinity` for never. */
  readonly grant: { readonly expiresAt: number }
  /** Rounds of pings since the client was last heard. */
  silentRounds: number
  /** Whether a ping is not answered yet. */
  isPinged: boolean
  /** UNIX time in milliseconds at which it is to be told that its token ends soon; `Infinity` for never, or no more. */
  warnAt: number
  /** The timer of a warning or an end that is near. */
  expiry: ReturnType<typeof setTimeout> | undefined
}

export interface Clock {
  /** UNIX time in milliseconds. Somebody may set this clock. */
  wall(): number
  /** Milliseconds of the monotonic clock, by which timers run. */
  monotonic(): number
}

export interface LivenessOptions<S> {
  /** The open ones. */
  readonly sessions: ReadonlySet<S>
  readonly clock: Clock
  /** Milliseconds between two rounds of pings. */
  readonly pingEvery: number
  /** Called for a client that does not answer pings. */
  readonly silent: (session: S) => void
  /** Whether it is told that its token ends soon. */
  readonly isWarned: (session: S) => boolean
  /** Its token ends soon. It is told once. */
  readonly expiring: (session: S) => void
  /** Called for a client whose token has expired. */
  readonly expired: (session: S) => void
}

export interface Liveness<S> {
  opened(session: S): void
  /** It goes on under another grant. @param earlier that until now. */
  renewed(session: S, earlier: Lively['grant']): void
  /** @returns whether a ping was waiting for this pong. */
  pong(session: S): boolean
  closed(session: S): void
}

/** A client that answers in none of this many rounds is dropped at the next: 60 s after its last answer. */
const SILENT_ROUNDS = 3

/** Milliseconds between the warning and the end of a token; half of what is left where that is less. */
const WARNED_AHEAD = 30_000

/** Milliseconds between two checks of whether the wall clock was set. */
const LOOK_EVERY = 1000

/** Milliseconds by which the clocks may drift apart before every timer is set anew. */
const APART = 100

export function createLiveness<S extends Lively>(options: LivenessOptions<S>): Liveness<S> {
  const { sessions, clock, pingEvery } = options
  let pings: ReturnType<typeof setInterval> | undefined
  let looks: ReturnType<typeof setInterval> | undefined
  /** Open clients whose token ends. */
  let ending = 0
  /** The difference of the two clocks when the timers were set. */
  let offset = 0

  const apart = (): number => clock.wall() - clock.monotonic()

  /** Pings every client, and sets a timer for tokens that expire within the next two rounds. */
  function round(): void {
    for (const session of sessions) {
      if (session.silentRounds++ >= SILENT_ROUNDS) {
        options.silent(session)
        continue
      }
      session.isPinged = session.client.ping()
      if (!session.isPinged) session.silentRounds = 0
      watch(session)
    }
  }

  /** Sets a timer for what is near; a far one would be more than a timer can hold, and cost memory for nothing. */
  function watch(session: S): void {
    const left = Math.min(session.warnAt, session.grant.expiresAt) - clock.wall()
    if (session.expiry !== undefined || left > 2 * pingEvery) return
    session.expiry = setTimeout(
      () => {
        session.expiry = undefined
        // Timers run by the monotonic clock, but `exp` is wall-clock time.
        const now = clock.wall()
        if (now >= session.grant.expiresAt) return options.expired(session)
        if (now >= session.warnAt) {
          session.warnAt = Number.POSITIVE_INFINITY
          options.expiring(session)
        }
        watch(session)
      },
      Math.max(0, Math.ceil(left)),
    )
  }

  function begin(session: S): void {
    const { expiresAt } = session.grant
    if (expiresAt === Number.POSITIVE_INFINITY) return
    if (ending++ === 0) {
      offset = apart()
      looks = setInterval(look, LOOK_EVERY)
    }
    const left = expiresAt - clock.wall()
    if (options.isWarned(session)) session.warnAt = expiresAt - (left > WARNED_AHEAD ? WARNED_AHEAD : left / 2)
    watch(session)
  }

  function end(session: S, { expiresAt }: Lively['grant']): void {
    clearTimeout(session.expiry)
    session.expiry = undefined
    session.warnAt = Number.POSITIVE_INFINITY
    if (expiresAt !== Number.POSITIVE_INFINITY && --ending === 0) clearInterval(looks)
  }

  /** After the wall clock was set, or the machine slept, every timer is wrong and is set anew. */
  function look(): void {
    const now = apart()
    if (Math.abs(now - offset) < APART) return
    offset = now
    for (const session of sessions) {
      clearTimeout(session.expiry)
      session.expiry = undefined
      watch(session)
    }
  }

  return {
    opened(session) {
      pings ??= setInterval(round, pingEvery)
      begin(session)
    },
    renewed(session, earlier) {
      end(session, earlier)
      begin(session)
    },
    pong(session) {
      const isAnswer = session.isPinged
      session.silentRounds = 0
      session.isPinged = false
      return isAnswer
    },
    closed(session) {
      end(session, session.grant)
      if (sessions.size > 0) return
      clearInterval(pings)
      pings = undefined
    },
  }
}
