/** Owns noticing that a file which the configuration was read from is another one now, or holds something else. */
import { readFileSync, type Stats, statSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { ReadFile } from '../database/conninfo.ts'

export interface Watch {
  /** Reads a file, and watches it from then on. */
  readonly readFile: ReadFile
  /** Calls back when a file has changed and is still for a period, so that a certificate and its key go together. */
  start(changed: () => void): void
  stop(): void
}

/**
 * The files are looked at: Kubernetes changes a mounted secret by swapping a symlink above it, of which a watch on the file hears nothing.
 *
 * @param period milliseconds between two looks.
 */
export function createWatch(period: number): Watch {
  /** What each file was when it was read last. */
  const stamps = new Map<string, string>()
  let before = new Map<string, string>()
  let timer: ReturnType<typeof setTimeout> | undefined

  async function look(changed: () => void): Promise<void> {
    // A file system that does not answer holds up a thread of the pool.
    const now = new Map<string, string>()
    for (const path of [...stamps.keys()]) now.set(path, await stat(path).then(stampOf, () => NONE))
    if (timer === undefined) return
    const isStill = [...now].every(([path, stamp]) => before.get(path) === stamp)
    if (isStill && [...now].some(([path, stamp]) => stamps.get(path) !== stamp)) {
      // A file that is not read again, because another is faulty, is not changed for ever.
      for (const [path, stamp] of now) stamps.set(path, stamp)
      changed()
    }
    before = now
    schedule(changed)
  }

  function schedule(changed: () => void): void {
    timer = setTimeout(() => void look(changed), period)
  }

  return {
    readFile(path) {
      // Ahead of reading: what changes in between is noticed.
      stamps.set(path, stampNow(path))
      return readFileSync(path)
    },
    start: schedule,
    stop() {
      clearTimeout(timer)
      timer = undefined
    },
  }
}

const NONE = 'none'

function stampNow(path: string): string {
  try {
    return stampOf(statSync(path))
  } catch {
    return NONE
  }
}

/** What tells one content from another. A pipe can be read only once, and is never another. */
const stampOf = (stats: Stats): string =>
  stats.isFile() ? [stats.dev, stats.ino, stats.size, stats.mtimeMs, stats.ctimeMs].join() : 'no file'
