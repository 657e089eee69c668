/**
 * Owns whether a port's connections are gone, as Linux tells it. Bun reports a WebSocket as closed as soon as it has buffered the close
 * frame. It goes on to write and to read, and does not report when the client has hung up.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Milliseconds between two checks. */
const CHECK_EVERY = 20

/**
 * Resolves when this process has no connection left at a local port, or after `patience` milliseconds. On other systems than Linux, it
 * always takes that long.
 */
export async function hungUp(port: number, patience: number): Promise<void> {
  const end = performance.now() + patience
  const own = sockets()
  for (;;) {
    const left = end - performance.now()
    if (left <= 0 || (own && !connections(port).some((inode) => own.has(inode)))) return
    await new Promise((resolve) => setTimeout(resolve, Math.min(CHECK_EVERY, left)))
  }
}

/** The inodes of this process's sockets, because other processes may share its port. Undefined where the system does not tell. */
function sockets(): ReadonlySet<string> | undefined {
  try {
    return new Set(readdirSync('/proc/self/fd').map((fd) => /^socket:\[(\d+)\]/.exec(target(`/proc/self/fd/${fd}`))?.[1] ?? ''))
  } catch {
    return undefined
  }
}

function target(link: string): string {
  try {
    return readlinkSync(link)
  } catch {
    return '' // The descriptor that listed the folder is closed by now.
  }
}

/** The inodes of connections at a local port. One that no process holds has inode 0. */
function connections(port: number): string[] {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const rows = ['tcp', 'tcp6']
    .flatMap((table) => read(`/proc/self/net/${table}`).split('\n'))
    .map((row) => row.trim().split(/\s+/))
  return rows.filter(([, address]) => address?.endsWith(local)).map((fields) => fields[9] ?? '')
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return '' // A system without IPv6.
  }
}
