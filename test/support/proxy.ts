/** Owns a TCP proxy in front of PostgreSQL, or of the program, that does what networks do: to all connections, or to one of several, or in one direction. */
import { connect, createServer, type Socket } from 'node:net'

export interface Proxy extends Disposable {
  readonly port: number
  /** Bytes that came for the database so far. */
  readonly bytes: number
  /** From now on every byte is swallowed, of open connections and of new ones. */
  swallow(): void
  /** New connections pass again; those that went silent stay so. */
  pass(): void
  /** The open connections, or those of a kind, the oldest first. */
  links(side?: Side): readonly Link[]
}

/** What a session does, as its statements show: LISTEN, or NOTIFY. */
export type Side = 'listening' | 'sending'

/** To the database, or from it. */
export type Direction = 'up' | 'down'

export interface Link {
  /** Swallows every byte from now on: no close, no error. */
  swallow(direction?: Direction): void
  /** Holds every byte back for some milliseconds from now on. */
  delay(milliseconds: number, direction?: Direction): void
  /** Ends both sides with RST. */
  reset(): void
}

const marks: Readonly<Record<Side, RegExp>> = { listening: /\blisten "/i, sending: /\bpg_notify\(/i }

/** The connection string of a server that is reached by another port. */
export const uriThrough = (
  { uri, port }: { readonly uri: string; readonly port: number },
  proxy: { readonly port: number },
): string => uri.replace(`:${port}`, `:${proxy.port}`)

export async function startProxy(target: number): Promise<Proxy> {
  let isSwallowing = false
  let bytes = 0
  const sockets = new Set<Socket>()
  const links = new Set<Link & { side: Side | undefined }>()

  function link(near: Socket, far: Socket): void {
    const silent = { up: isSwallowing, down: isSwallowing }
    const late = { up: 0, down: 0 }
    const ways = { up: { from: near, to: far }, down: { from: far, to: near } } as const
    const both = (direction: Direction | undefined): readonly Direction[] => (direction ? [direction] : ['up', 'down'])
    const self: Link & { side: Side | undefined } = {
      side: undefined,
      swallow(direction) {
        for (const way of both(direction)) silent[way] = true
      },
      delay(milliseconds, direction) {
        for (const way of both(direction)) late[way] = milliseconds
      },
      reset() {
        near.resetAndDestroy()
        far.resetAndDestroy()
      },
    }
    links.add(self)
    near.on('close', () => links.delete(self))
    for (const way of ['up', 'down'] as const) {
      const { from, to } = ways[way]
      sockets.add(from)
      from.on('data', (chunk: Buffer) => {
        if (way === 'up') {
          self.side ??= sideOf(chunk)
          bytes += chunk.length
        }
        silent[way] ||= isSwallowing
        const hand = (): void => {
          if (!silent[way] && to.writable) to.write(chunk)
        }
        // Timers of equal length fire in their order.
        if (late[way] > 0) setTimeout(hand, late[way])
        else hand()
      })
      from.on('close', () => {
        sockets.delete(from)
        if (!silent[way]) setTimeout(() => to.destroy(), late[way])
      })
      from.on('error', () => from.destroy())
    }
  }

  const server = createServer((near) => link(near, connect(target, '127.0.0.1')))
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return {
    port: address.port,
    get bytes() {
      return bytes
    },
    swallow: () => {
      isSwallowing = true
    },
    pass: () => {
      isSwallowing = false
    },
    links: (side) => [...links].filter((link) => side === undefined || link.side === side),
    [Symbol.dispose]: () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

function sideOf(chunk: Buffer): Side | undefined {
  const text = chunk.toString('latin1')
  if (marks.listening.test(text)) return 'listening'
  return marks.sending.test(text) ? 'sending' : undefined
}
