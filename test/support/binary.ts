/** Owns the compiled binary: built once a run, when the first file that needs it is loaded. */
import { spawnSync } from 'node:child_process'
import { resolve } from 'node:path'

const root = resolve(import.meta.dir, '../..')

const built = spawnSync('npm', ['run', '--silent', 'build'], { cwd: root, encoding: 'utf8' })
if (built.status !== 0) throw new Error(`the build failed: ${built.stdout}${built.stderr}`)

export const binary = resolve(root, 'dist/postgres-websockets')
