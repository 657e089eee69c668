/** What this program takes for contained is what PostgreSQL's jsonb takes for contained. */
import { expect, test } from 'bun:test'
import { contains, readJson } from '../../lib/rules/containment.ts'
import { createRandom } from '../support/random.ts'
import { sql } from '../support/setup.ts'

test('random values contain each other exactly as jsonb has it', async () => {
  const random = createRandom(18)
  const pick = <T>(...values: readonly T[]): T => random.pick(values)
  const scalar = (): string =>
    pick(
      '1',
      '1.0',
      '10e-1',
      '0.1E1',
      '-0',
      '0',
      '12345678901234567890',
      '12345678901234567891',
      '"1"',
      '"a"',
      '"\\u0061"',
      'true',
      'null',
    )
  const value = (depth: number): string => {
    if (depth === 0 || random.below(10) < 4) return scalar()
    const items = Array.from({ length: random.below(3) }, () => value(depth - 1))
    return random.below(2) === 0
      ? `[${items.join(',')}]`
      : `{${items.map((item) => `${pick('"a"', '"b"', '"\\u0062"')}:${item}`).join(',')}}`
  }
  const object = (): string => `{"a":${value(3)},"b":${value(2)}}`
  const pairs = Array.from({ length: 20_000 }, () => [object(), random.below(10) < 7 ? `{"a":${value(2)}}` : object()] as const)
  const rows = await sql()`select (p ->> 0)::jsonb @> (p ->> 1)::jsonb as contains
    from json_array_elements(${JSON.stringify(pairs)}::text::json) with ordinality as t(p, place) order by place`
  const differing = pairs.filter(([outer, inner], index) => contains(readJson(outer), readJson(inner)) !== rows[index]?.contains)
  expect(differing).toEqual([])
  const contained = rows.filter((row) => row.contains).length
  expect(contained).toBeGreaterThan(500)
})
