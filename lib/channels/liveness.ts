/** Owns which clients are still there and still allowed to be: pings and their answers, and the end of tokens. */

/** What is kept of it with a client. */
export interface Lively {
  /** UNIX time in milliseconds; `Infinity` for never. */
  readonly grant: { readonly expiresAt: number }
  /** Rounds of pings since the client was last heard. */
  silentRounds: number
  /** Whether a ping is not answered yet. */
  isPinged: boolean
  /** The timer of an end that is near. */
  expiry: ReturnType<typeof setTimeout> | undefined
}

interface LivelySocket {
  readonly data: Lively
  ping(): void
}

export interface Clock {
  /** UNIX time in milliseconds, which may be set. */
  wall(): number
  /** Milliseconds of a clock that nobody sets, by which timers run. */
  monotonic(): number
}

export interface LivenessOptions<S> {
  /** The open sockets. */
  readonly sockets: ReadonlySet<S>
  readonly clock: Clock
  /** Milliseconds between two rounds of pings. */
  readonly pingEvery: number
  /** Answers no ping. */
  readonly silent: (socket: S) => void
  /** Its token has ended. */
  readonly expired: (socket: S) => void
}

export interface Liveness<S> {
  opened(socket: S): void
  /** @returns whether it answers a ping. */
  pong(socket: S): boolean
  closed(socket: S): void
}

/** A client is gone that answered in none of these rounds by the next one: 60 s after the last it answered. */
const SILENT_ROUNDS = 3

/** Milliseconds between two looks at whether the wall clock was set. */
const LOOK_EVERY = 1000

/** Milliseconds by which the clocks may come apart before every end is looked at anew. */
const APART = 100

export function createLiveness<S extends LivelySocket>(options: LivenessOptions<S>): Liveness<S> {
  const { sockets, clock, pingEvery } = options
  let pings: ReturnType<typeof setInterval> | undefined
  let looks: ReturnType<typeof setInterval> | undefined
  /** Open clients whose token ends. */
  let ending = 0
  /** Between the two clocks when the timers were set. */
  let offset = 0

  const apart = (): number => clock.wall() - clock.monotonic()

  /** Pings everyone, and watches those whose token ends before the next round but one. */
  function round(): void {
    for (const socket of sockets) {
      const { data } = socket
      if (data.silentRounds++ >= SILENT_ROUNDS) {
        options.silent(socket)
        continue
      }
      data.isPinged = true
      socket.ping()
      watch(socket)
    }
  }

  /** Sets a timer for an end that is near; a far one would be more than a timer can hold, and cost memory for nothing. */
  function watch(socket: S): void {
    const { data } = socket
    const left = data.grant.expiresAt - clock.wall()
    if (data.expiry !== undefined || left > 2 * pingEvery) return
    data.expiry = setTimeout(
      () => {
        data.expiry = undefined
        // The timer's clock is not the one that `exp` is written by.
        if (clock.wall() < data.grant.expiresAt) watch(socket)
        else options.expired(socket)
      },
      Math.max(0, Math.ceil(left)),
    )
  }

  /** Where the wall clock was set, or the machine slept, every timer is for another moment than the end it was set for. */
  function look(): void {
    const now = apart()
    if (Math.abs(now - offset) < APART) return
    offset = now
    for (const socket of sockets) {
      clearTimeout(socket.data.expiry)
      socket.data.expiry = undefined
      watch(socket)
    }
  }

  return {
    opened(socket) {
      pings ??= setInterval(round, pingEvery)
      if (socket.data.grant.expiresAt === Number.POSITIVE_INFINITY) return
      if (ending++ === 0) {
        offset = apart()
        looks = setInterval(look, LOOK_EVERY)
      }
      watch(socket)
    },
    pong({ data }) {
      const isAnswer = data.isPinged
      data.silentRounds = 0
      data.isPinged = false
      return isAnswer
    },
    closed({ data }) {
      clearTimeout(data.expiry)
      if (data.grant.expiresAt !== Number.POSITIVE_INFINITY && --ending === 0) clearInterval(looks)
      if (sockets.size > 0) return
      clearInterval(pings)
      pings = undefined
    },
  }
}
