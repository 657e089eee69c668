/** Owns noticing that a file of the configuration was changed or replaced. */
import { readFileSync, type Stats, statSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { ReadFile } from '../database/conninfo.ts'

export interface Watch {
  /** Reads a file, and watches it from then on. */
  readonly readFile: ReadFile
  /** Calls back when files have changed and then stayed as they are for a period, so that a certificate and its key are read together. */
  start(changed: () => void): void
  stop(): void
}

/**
 * Polls the files. Kubernetes changes a mounted secret by swapping a symlink above it, which a watch on the file does not notice.
 *
 * @param period milliseconds between two polls.
 */
export function createWatch(period: number): Watch {
  /** The stamp of each file when it was last read. */
  const stamps = new Map<string, string>()
  let before = new Map<string, string>()
  let timer: ReturnType<typeof setTimeout> | undefined

  async function look(changed: () => void): Promise<void> {
    // Asynchronous: a file system that does not answer blocks a thread of the pool, and not the program.
    const now = new Map<string, string>()
    for (const path of [...stamps.keys()]) now.set(path, await stat(path).then(stampOf, () => NONE))
    if (timer === undefined) return
    const isStill = [...now].every(([path, stamp]) => before.get(path) === stamp)
    if (isStill && [...now].some(([path, stamp]) => stamps.get(path) !== stamp)) {
      // Another file may be faulty, so that this one is not read again. It must not count as changed for ever.
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
      // Before reading, so that a change in between is noticed.
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

/** What tells one content from another. A pipe can be read only once, so it never counts as changed. */
const stampOf = (stats: Stats): string =>
  stats.isFile() ? [stats.dev, stats.ino, stats.size, stats.mtimeMs, stats.ctimeMs].join() : 'no file'
