/**
 * Owns files served from a folder: which file a path names, that it lies inside, its type, conditional requests and byte ranges
 * (RFC 9110 sections 13 and 14).
 */
import { promises as files, type Stats } from 'node:fs'
import { join, sep } from 'node:path'
import { type Refusal, refuse } from '../refusal.ts'
import type { FileBody } from '../runtime/contract.ts'

export interface StaticFiles {
  /**
   * @param path the request's path as it stands in the URL.
   * @returns the answer; a refusal where there is no such file or it may not be seen.
   */
  answer(request: Request, path: string): Promise<Response | Refusal>
}

/**
 * @param root a folder; where it does not exist, every path is not found.
 * @param contentType the media type by a file's name.
 */
export function createStaticFiles(
  root: string,
  contentType: (name: string) => string | undefined,
  fileBody: FileBody,
): StaticFiles {
  return {
    async answer(request, path) {
      if (request.method !== 'GET' && request.method !== 'HEAD') return refuse('METHOD_NOT_ALLOWED')
      const segments = decodeSegments(path)
      if (!segments) return refuse('PATH_NOT_FOUND')
      if (segments.some((segment) => segment.startsWith('.'))) return refuse('PATH_FORBIDDEN')
      const found = await locate(root, segments)
      if ('refused' in found) return found
      if (found.isIndex && !path.endsWith('/')) return redirect(segments)
      const type = contentType(found.path) ?? 'application/octet-stream'
      return respond(request, found, type, fileBody)
    },
  }
}

/** The path's segments; undefined when one cannot be a file's name. */
function decodeSegments(path: string): string[] | undefined {
  try {
    const segments = path
      .split('/')
      .filter((segment) => segment !== '')
      .map(decodeURIComponent)
    return segments.some((segment) => /[/\\\0]/.test(segment)) ? undefined : segments
  } catch {
    return undefined
  }
}

/** Names that begin with two dots are not hidden: Kubernetes mounts a volume's files as links into a folder `..DATE`. */
const isHidden = (segment: string): boolean => /^\.(?!\.)/.test(segment)

interface Found {
  readonly path: string
  readonly stats: Stats
  /** Whether it is the index of the folder that was named. */
  readonly isIndex: boolean
}

async function locate(root: string, segments: readonly string[]): Promise<Found | Refusal> {
  try {
    const inside = await files.realpath(root)
    const named = await files.realpath(join(inside, ...segments))
    const isFolder = (await files.stat(named)).isDirectory()
    const path = isFolder ? await files.realpath(join(named, 'index.html')) : named
    // A link may lead out of the folder, or to a hidden file.
    const folder = inside.endsWith(sep) ? inside : inside + sep
    if (!path.startsWith(folder) || path.slice(folder.length).split(sep).some(isHidden)) return refuse('PATH_FORBIDDEN')
    const stats = await files.stat(path)
    // Reading a device or a pipe could go on for ever.
    if (!stats.isFile()) return refuse('PATH_NOT_FOUND')
    await (await files.open(path)).close()
    return { path, stats, isIndex: isFolder }
  } catch {
    return refuse('PATH_NOT_FOUND') // Missing, unreadable, or a name that is too long: clients see no difference.
  }
}

/** Relative links of a folder's index are relative to the folder, so its path ends in a slash. */
function redirect(segments: readonly string[]): Response {
  return new Response(null, { status: 301, headers: { Location: `/${segments.map(encodeURIComponent).join('/')}/` } })
}

function respond(request: Request, { path, stats }: Found, type: string, fileBody: FileBody): Response {
  const etag = `W/"${stats.size.toString(36)}-${Math.floor(stats.mtimeMs).toString(36)}"`
  const headers = new Headers({
    'Content-Type': type,
    'X-Content-Type-Options': 'nosniff',
    'Last-Modified': stats.mtime.toUTCString(),
    'Accept-Ranges': 'bytes',
    ETag: etag,
  })
  const status = precondition(request.headers, etag, stats.mtimeMs)
  if (status) return new Response(null, { status, headers })
  const range = request.method === 'GET' ? readRange(request.headers, stats) : undefined
  if (range === 'unsatisfiable') {
    headers.set('Content-Range', `bytes */${stats.size}`)
    return new Response(null, { status: 416, headers })
  }
  const { start, end } = range ?? { start: 0, end: stats.size - 1 }
  if (range) headers.set('Content-Range', `bytes ${start}-${end}/${stats.size}`)
  headers.set('Content-Length', String(end - start + 1))
  const body = request.method === 'HEAD' || end < start ? null : fileBody(path, start, end)
  return new Response(body, { status: range ? 206 : 200, headers })
}

/** The order of RFC 9110 section 13.2.2. @returns 304 or 412 where a condition ends the request. */
function precondition(headers: Headers, etag: string, modified: number): 304 | 412 | undefined {
  const seconds = Math.floor(modified / 1000)
  const time = (name: string): number => Math.floor(Date.parse(headers.get(name) ?? '') / 1000)
  const names = (list: string): boolean => list.trim() === '*' || list.split(',').some((tag) => tag.trim() === etag)
  const match = headers.get('If-Match')
  // If-Match compares strongly, and this server's tags are weak: only * matches.
  if (match !== null && match.trim() !== '*') return 412
  if (match === null && time('If-Unmodified-Since') < seconds) return 412
  const noneMatch = headers.get('If-None-Match')
  if (noneMatch !== null) return names(noneMatch) ? 304 : undefined
  return time('If-Modified-Since') >= seconds ? 304 : undefined
}

/** One range; more than one, or an unknown unit, gets the whole (RFC 9110 section 14.2). */
function readRange(headers: Headers, { size, mtimeMs }: Stats): { start: number; end: number } | 'unsatisfiable' | undefined {
  const [, first = '', last = ''] = /^bytes=\s*(\d*)-(\d*)\s*$/.exec(headers.get('Range') ?? '') ?? []
  if (first === '' && last === '') return undefined
  const condition = headers.get('If-Range')
  // A weak tag never matches here (RFC 9110 section 13.1.5), a date does when it is the file's own.
  if (condition !== null && Date.parse(condition) !== Math.floor(mtimeMs / 1000) * 1000) return undefined
  const start = first === '' ? Math.max(0, size - Number(last)) : Number(first)
  const end = first === '' || last === '' ? size - 1 : Math.min(Number(last), size - 1)
  if (first !== '' && last !== '' && Number(last) < Number(first)) return undefined
  return start >= size || (first === '' && Number(last) === 0) ? 'unsatisfiable' : { start, end }
}
