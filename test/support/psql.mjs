/** The program that psql.ts installs. */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import postgres from 'postgres'

const { values, positionals } = parseArgs({
  options: {
    command: { type: 'string' },
    file: { type: 'string' },
    'no-align': { type: 'boolean' },
    'tuples-only': { type: 'boolean' },
  },
  allowPositionals: true,
})
const options = { max: 1, onnotice: () => undefined, fetch_types: false }
const sql = positionals[0]?.includes('://')
  ? postgres(positionals[0], options)
  : postgres({ ...options, database: positionals[0] })
try {
  const rows = await sql.unsafe(values.command ?? readFileSync(values.file, 'utf8'))
  if (values.command !== undefined) for (const row of rows) console.log(Object.values(row).join('|'))
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
} finally {
  await sql.end()
}
