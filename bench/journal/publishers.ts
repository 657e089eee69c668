/**
 * Owns publishers in a process of their own: each repeats one statement, one transaction at a time.
 *
 *     bun bench/journal/publishers.ts URI COUNT MILLISECONDS STATEMENT
 *
 * Prints how many transactions were committed a second, and the 99th percentile of how long one took, in milliseconds.
 */
import postgres from 'postgres'

const [uri = '', count = '', milliseconds = '', statement = ''] = process.argv.slice(2)
const sessions = Array.from({ length: Number(count) }, () =>
  postgres(uri, { max: 1, fetch_types: false, onnotice: () => undefined }),
)
const taken: number[] = []

// The first statements are planned anew each time.
const warm = performance.now() + Math.min(1000, Number(milliseconds) / 4)
const end = warm + Number(milliseconds)

await Promise.all(
  sessions.map(async (session) => {
    for (let began = performance.now(); began < end; began = performance.now()) {
      await session.unsafe(statement, [], { prepare: true })
      if (began > warm) taken.push(performance.now() - began)
    }
  }),
)
taken.sort((one, other) => one - other)
console.log(JSON.stringify({ rate: (taken.length / Number(milliseconds)) * 1000, p99: taken[Math.floor(taken.length * 0.99)] }))
process.exit()
