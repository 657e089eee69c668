/** Owns where each form of `PGWS_HOST` binds. */

/** The addresses of each form, of which the first is taken that the machine has. */
const forms: Readonly<Record<string, readonly string[]>> = {
  '*': ['::', '0.0.0.0'],
  '*4': ['0.0.0.0', '::'],
  '!4': ['0.0.0.0'],
  '*6': ['::', '0.0.0.0'],
  '!6': ['::'],
}

/** Binds the first address of a host that can be had. Rejected with what the last attempt met. */
export async function bindFirst<T>(host: string, bind: (hostname: string, ipv6Only: boolean) => T | Promise<T>): Promise<T> {
  let fault: unknown
  for (const hostname of forms[host] ?? [host]) {
    try {
      return await bind(hostname, host === '!6')
    } catch (error) {
      fault = error
      // Only a missing address family makes the next one better.
      if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') break
    }
  }
  throw fault
}
