/** Owns the files that tests hand to the program. */
import { resolve } from 'node:path'

/** The path of a file in `test/fixtures`, which `test/fixtures/make` makes. */
export const fixture = (name: string): string => resolve(import.meta.dir, '../fixtures', name)

/** Reads no file: for a configuration that names none. */
export const noFile = (path: string): never => {
  throw new Error(`ENOENT: ${path}`)
}
