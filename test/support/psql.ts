/** Owns a stand-in for psql, which npm does not have: it runs a command or a file as psql does with --no-align and --tuples-only. */
import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

/** Puts it into a folder, and returns the folder for PATH. */
export function installPsql(folder: string): string {
  const program = resolve(import.meta.dir, 'psql.mjs')
  writeFileSync(join(folder, 'psql'), `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`, { mode: 0o755 })
  return folder
}
