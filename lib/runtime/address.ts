/** Owns where each form of `PGWS_HOST` binds, and what is said when it cannot be bound. */
import { lookup } from 'node:dns/promises'
import { codeOf, messageOf } from '../fault.ts'
import type { ServeOptions } from './contract.ts'

/** The addresses of each form. The first one that the machine has is used. */
const forms: Readonly<Record<string, readonly string[]>> = {
  '*': ['::', '0.0.0.0'],
  '*4': ['0.0.0.0', '::'],
  '!4': ['0.0.0.0'],
  '*6': ['::', '0.0.0.0'],
  '!6': ['::'],
}

type Bind<T> = (hostname: string, ipv6Only: boolean) => T | Promise<T>

/** What the system's codes mean for a port. */
const meanings: Readonly<Record<string, string>> = {
  EADDRINUSE: 'it is in use',
  EADDRNOTAVAIL: 'the address is none of this machine',
  EACCES: 'the port needs a privilege (CAP_NET_BIND_SERVICE)',
  ENOTFOUND: 'the name has no address',
}

/** Binds the first address of a host that can be bound. @throws the error of the last attempt. */
export async function bindFirst<T>({ host, port }: Pick<ServeOptions, 'host' | 'port'>, bind: Bind<T>): Promise<T> {
  try {
    // For a name without an address, Bun says that the port is in use.
    if (forms[host] === undefined) await lookup(host)
    return await bindInTurn(host, bind)
  } catch (error) {
    const reason = meanings[codeOf(error) ?? ''] ?? messageOf(error)
    throw new Error(`port ${port} on ${host}: ${reason}`, { cause: error })
  }
}

async function bindInTurn<T>(host: string, bind: Bind<T>): Promise<T> {
  let fault: unknown
  for (const hostname of forms[host] ?? [host]) {
    try {
      return await bind(hostname, host === '!6')
    } catch (error) {
      fault = error
      // The next address can only help where an address family is missing.
      if (codeOf(error) === 'EADDRINUSE') break
    }
  }
  throw fault
}
