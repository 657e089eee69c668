/** Owns which variables of the environment look like the program's but are not. Pure. */

/** A variable that nothing reads, and the one that may be meant. */
export interface Unknown {
  readonly name: string
  readonly nearest: string | undefined
}

/** The variables that begin with PGWS_ and are not empty, but that the program does not know. */
export function unknownVariables(env: Readonly<Record<string, string | undefined>>, known: readonly string[]): Unknown[] {
  return Object.keys(env)
    .filter((name) => name.startsWith('PGWS_') && env[name] && !known.includes(name))
    .map((name) => ({ name, nearest: nearestOf(name, known) }))
}

/** The known name with the fewest typing mistakes between the two, unless these are more than a third of the letters. */
function nearestOf(name: string, known: readonly string[]): string | undefined {
  const ranked = known.map((other) => ({ other, slips: slipsBetween(name, other) })).sort((one, other) => one.slips - other.slips)
  const [best] = ranked
  return best && best.slips * 3 <= name.length - 'PGWS_'.length ? best.other : undefined
}

/** Letters to insert, delete, replace or swap with their neighbour (optimal string alignment). */
function slipsBetween(one: string, other: string): number {
  const rows = [Array.from({ length: other.length + 1 }, (_, column) => column)]
  const at = (row: number, column: number): number => rows[row]?.[column] ?? 0
  for (let row = 1; row <= one.length; row++) {
    rows.push([row])
    for (let column = 1; column <= other.length; column++) {
      const isSame = one[row - 1] === other[column - 1]
      const isSwapped = row > 1 && column > 1 && one[row - 1] === other[column - 2] && one[row - 2] === other[column - 1]
      rows[row]?.push(
        Math.min(
          at(row - 1, column) + 1,
          at(row, column - 1) + 1,
          at(row - 1, column - 1) + Number(!isSame),
          isSwapped ? at(row - 2, column - 2) + 1 : Number.POSITIVE_INFINITY,
        ),
      )
    }
  }
  return at(one.length, other.length)
}
