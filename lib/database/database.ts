/** Owns where a connection string leads: which hosts are tried, in which order, and for how long. */
import { type Database, DatabaseError, errorAt, type ListeningConnection, type Notified } from './connection.ts'
import { type Conninfo, type Host, place } from './conninfo.ts'
import { type Listening, openConnection } from './opening.ts'
import { shuffled } from './transport.ts'

/** The shortest time limit of a parallel attempt, in milliseconds. A database on a busy machine takes some time to accept one. */
const SHORTEST_LIMIT = 500

/**
 * @param read where and how to connect, asked for each connection anew.
 * @param interval milliseconds within which a connection is to be had once the network lets it through again; 0 leaves that to
 *   `connect_timeout`.
 */
export function createDatabase(read: () => Conninfo, interval: number): Database {
  const connect = (listening?: Listening): Promise<ListeningConnection> => {
    const conninfo = read()
    const attempt: Attempt = (limit, notified) => {
      const limited = { ...conninfo, connectTimeout: Math.min(conninfo.connectTimeout, limit) }
      const heard = listening && { channel: listening.channel, notified }
      return firstOf(limited, (host, encrypted, target) => openConnection(limited, host, encrypted, target, heard))
    }
    const notified = listening?.notified ?? (() => undefined)
    const every = interval > 0 ? Math.max(interval / 2, SHORTEST_LIMIT) : Number.POSITIVE_INFINITY
    return every < conninfo.connectTimeout ? inParallel(attempt, every, notified) : attempt(conninfo.connectTimeout, notified)
  }
  return { connect: () => connect(), connectListening: (channel, notified) => connect({ channel, notified }) }
}

/** @param limit milliseconds. */
type Attempt = (limit: number, notified: Notified) => Promise<ListeningConnection>

/**
 * Connects with a first attempt, which has as long as `connect_timeout` allows, because a database may be slow. But packets that the
 * network swallowed are never answered. So another attempt starts beside it every so many milliseconds, with that long as its limit.
 * The first one to connect wins.
 */
function inParallel(attempt: Attempt, every: number, notified: Notified): Promise<ListeningConnection> {
  return new Promise((resolve, reject) => {
    let isOver = false
    const end = (act: () => void): void => {
      isOver = true
      clearInterval(timer)
      act()
    }
    const run = async (limit: number): Promise<void> => {
      let hasWon = false
      const connection = await attempt(limit, (notification) => {
        if (hasWon) notified(notification)
      })
      if (isOver) return connection.close()
      hasWon = true
      end(() => resolve(connection))
    }
    // Only the first attempt's error is told: it had the most time to find out what is wrong.
    const timer = setInterval(() => void run(every).catch(() => undefined), every)
    run(Number.POSITIVE_INFINITY).catch((error) => end(() => reject(error)))
  })
}

type Open = (host: Host, encrypted: boolean, target: Conninfo['target']) => Promise<ListeningConnection>

/** The first connection that can be opened, in libpq's order: by target, by host, by encryption. */
async function firstOf(conninfo: Conninfo, open: Open): Promise<ListeningConnection> {
  let last = new DatabaseError('there is no host to connect to', 'NO_HOST', false)
  const targets = conninfo.target === 'prefer-standby' ? (['standby', 'any'] as const) : [conninfo.target]
  const hosts = conninfo.shuffle ? shuffled(conninfo.hosts) : conninfo.hosts
  for (const target of targets) {
    for (const host of hosts) {
      for (const encrypted of encryptions(conninfo, host)) {
        try {
          return await open(host, encrypted, target)
        } catch (error) {
          last = errorAt(place(host), error)
        }
      }
    }
  }
  throw last
}

/** Whether to try TLS, in order (manual, "SSL Mode Descriptions"). A unix-domain socket never has it. */
function encryptions({ tls }: Conninfo, host: Host): readonly boolean[] {
  if (host.isSocket || tls.mode === 'disable') return [false]
  if (tls.mode === 'allow') return [false, true]
  if (tls.mode === 'prefer') return [true, false]
  return [true]
}
