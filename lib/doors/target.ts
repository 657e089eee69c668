/** Owns the two parts of what a request asks for: its path and its query. Bun gives no more than these where no host can be read. */

/** The path as it stands in the URL, for a channel's name is compared with its segment before that is decoded. */
export function readPath(url: string): string {
  const start = url.startsWith('/') ? 0 : url.indexOf('/', url.indexOf('://') + 3)
  return start === -1 ? '/' : (/^[^?#]*/.exec(url.slice(start))?.[0] ?? '/')
}

/** Undefined where there is none, as in most. */
export function readQuery(url: string): URLSearchParams | undefined {
  const start = url.indexOf('?')
  return start === -1 ? undefined : new URLSearchParams(url.slice(start))
}
