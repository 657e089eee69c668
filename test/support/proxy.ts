/** Owns a TCP proxy that can go silent, as a network does that swallows packets: no close, no error. */
import { connect, createServer, type Socket } from 'node:net'

export interface Proxy extends Disposable {
  readonly port: number
  /** From now on every byte is swallowed, of open connections and of new ones. */
  swallow(): void
  /** New connections pass again; those that went silent stay so. */
  pass(): void
}

export async function startProxy(target: number): Promise<Proxy> {
  let swallowing = false
  const sockets = new Set<Socket>()
  const server = createServer((near) => {
    let isSilent = swallowing
    const far = connect(target, '127.0.0.1')
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from)
      from.on('data', (chunk) => {
        isSilent ||= swallowing
        if (!isSilent) to.write(chunk)
      })
      from.on('close', () => {
        sockets.delete(from)
        if (!isSilent) to.destroy()
      })
      from.on('error', () => from.destroy())
    }
  })
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return {
    port: address.port,
    swallow: () => {
      swallowing = true
    },
    pass: () => {
      swallowing = false
    },
    [Symbol.dispose]: () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
