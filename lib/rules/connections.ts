/**
 * Owns the connections of this server in the database: who is here is written once a second, and who is ordered to end is ended.
 *
 * What was not written waits until it can be. A server that finds its own row gone, after a crash or because the others took it for
 * dead, begins again and writes everything anew.
 */

import type { Registered, Registry } from '../channels/registry.ts'
import { asDatabaseError, type Database } from '../database/connection.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { createPause, type Pause, within } from '../waiting.ts'
import { createChanges } from './changes.ts'
import { describeConnections } from './figures.ts'
import { createOrders } from './orders.ts'
import { ConnectionsFault } from './rights.ts'
import { createStatements } from './statements.ts'
import { createWriting } from './writing.ts'

export interface Connections<Client extends Registered> {
  readonly registry: Registry<Client>
  /** Whether tokens with these claims are let in no more, as far as this server knows. */
  isRevoked(claims: string): boolean
  /** To be called for each notification on `ORDERED`. */
  ordered(): void
  /** Resolves once it knows what is revoked. @throws ConnectionsFault where the database lacks something. */
  start(): Promise<void>
  /** Removes what this server wrote. */
  stop(): Promise<void>
}

export interface ConnectionsOptions<Client extends Registered> {
  readonly database: Database
  /** Names this run of this server, unlike any other. */
  readonly name: () => string
  /** Whether the journal tells who comes and goes. */
  readonly hasPresence: boolean
  /** The claims that it tells; undefined is all. */
  readonly shownClaims: readonly string[] | undefined
  /** Closes a client. */
  readonly end: (client: Client, reason: string) => void
  readonly log: Log
  readonly metrics: Pick<Metrics, 'gauge'>
}

/** The database channel that says that there is an order. */
export const ORDERED = 'pgws_connections'

/** Milliseconds between two writes. */
const WRITE_EVERY = 1000

/** Milliseconds for the last statement, when the server stops. */
const PATIENCE = 1000

export function createConnections<Client extends Registered>(options: ConnectionsOptions<Client>): Connections<Client> {
  const { database, hasPresence, shownClaims, end, log, metrics } = options
  const statements = createStatements(database)
  const orders = createOrders()
  const pause = createPause()
  const changes = createChanges<Client>()
  let name = ''
  let ended = 0
  let isAway = false
  let isStopped = false
  let running = Promise.resolve()
  const endFor = (client: Client, reason: string | undefined): void => {
    if (reason === undefined) return
    ended++
    end(client, cut(reason))
  }
  const writing = createWriting<Client>({ statements, changes, orders, hasPresence, shownClaims, ordered: endFor })
  describeConnections(metrics, () => ({
    rows: writing.rows,
    statements: statements.count,
    ended,
    revocations: writing.revocations,
  }))

  async function run(): Promise<void> {
    while (!isStopped) {
      if (!writing.isOrdered || isAway) await pause.wait(WRITE_EVERY)
      if (isStopped) return
      try {
        await writing.round(name)
        if (isAway) log.info('connections are written again')
        isAway = false
      } catch (error) {
        writing.failed()
        if (!isAway && !isStopped) log.warning('cannot write connections', { reason: asDatabaseError(error).message })
        isAway = true
      }
    }
  }

  function changed(client: Client): void {
    if (changes.changed(client)) endFor(client, orders.reasonToEnd(client, performance.now()))
  }

  return {
    registry: {
      opened(client) {
        changes.opened(client)
        changed(client)
      },
      changed,
      closed: changes.closed,
    },
    isRevoked: (claims) => orders.isRevoked(claims, performance.now()),
    ordered() {
      writing.ordered()
      pause.end()
    },
    async start() {
      name = options.name()
      await persistently(
        pause,
        () => isStopped,
        async () => {
          await statements.inspect()
          await writing.round(name)
        },
      )
      log.info('writing connections', { server: name })
      running = run()
    },
    async stop() {
      isStopped = true
      pause.end()
      await within(
        PATIENCE,
        running.then(() => writing.end(name)),
      )
      statements.stop()
    },
  }
}

/** Tries until it succeeds, the server stops, or trying again does not help. */
async function persistently(pause: Pause, isStopped: () => boolean, attempt: () => Promise<void>): Promise<void> {
  while (!isStopped()) {
    try {
      return await attempt()
    } catch (error) {
      if (error instanceof ConnectionsFault || !asDatabaseError(error).isPassing) throw error
      await pause.wait(WRITE_EVERY)
    }
  }
}

/** The most bytes of UTF-8 in the reason of a close frame (RFC 6455 section 5.5). */
const REASON_BYTES = 123

function cut(reason: string): string {
  const bytes = new Uint8Array(REASON_BYTES)
  return reason.slice(0, new TextEncoder().encodeInto(reason, bytes).read)
}
