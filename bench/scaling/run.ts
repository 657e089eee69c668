/**
 * Owns `npm run bench -- scaling`: the same works with one server on a database, with two, four, eight and nine, in one run. `--quick` is a
 * short form that only shows that it works.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { token } from '../../test/support/token.ts'
import { own, type Running, start } from '../subjects.ts'
import { startDatabase } from './database.ts'
import { worksOf } from './works.ts'

const quick = process.argv.includes('--quick')
const COUNTS = quick ? [1, 2, 3] : [1, 2, 4, 8, 9]

/** Milliseconds in which what was before comes to an end, the checks of a server that has just started among it. */
const SETTLED_MS = quick ? 200 : 700

const given = await token({ mode: 'rw' })
const database = await startDatabase()
const servers: Running[] = []
const figures = new Map<string, number[]>()

for (const count of COUNTS) {
  while (servers.length < count) {
    const variables = { PGWS_JOURNAL: 'True', PGWS_JOURNAL_CHANNELS: 'kept-*', PGWS_CHECK_LISTENER_INTERVAL: '5000' }
    servers.push(await start(own, database.serversUri, given, variables))
  }
  for (const { name, run } of worksOf({ servers, database, given, quick })) {
    await Bun.sleep(SETTLED_MS)
    for (const [measured, value] of Object.entries(await run())) {
      const row = `${name} | ${measured}`
      figures.set(row, [...(figures.get(row) ?? []), value])
    }
  }
}

const show = (value: number): string =>
  value >= 1000 ? Math.round(value).toLocaleString('en') : Number.isInteger(value) ? String(value) : value.toPrecision(3)
const ratio = (one = Number.NaN, other = Number.NaN): string => (other > 0 ? `${(one / other).toPrecision(3)} ×` : '–')
const last = COUNTS.length - 1
console.log(`| work | measured | ${COUNTS.join(' | ')} | ${COUNTS[last - 1]} to 1 | ${COUNTS[last]} to ${COUNTS[last - 1]} |`)
console.log(`| --- | --- | ${COUNTS.map(() => '---:').join(' | ')} | ---: | ---: |`)
for (const [row, values] of figures)
  console.log(
    `| ${row} | ${values.map(show).join(' | ')} | ${ratio(values[last - 1], values[0])} | ${ratio(values[last], values[last - 1])} |`,
  )

const out = resolve(import.meta.dir, '../../dist')
mkdirSync(out, { recursive: true })
const results = [...figures].map(([row, values]) => ({ row, values }))
writeFileSync(resolve(out, 'bench-scaling.json'), `${JSON.stringify({ quick, counts: COUNTS, results }, null, 2)}\n`)
for (const server of servers) await server.stop()
await database.stop()
process.exit()
