/** Owns random choices that a seed repeats. */

export interface Random {
  /** A whole number from 0 up to, but not, the limit. */
  below(limit: number): number
  pick<T>(items: readonly T[]): T
}

/** A linear congruential generator (Numerical Recipes, chapter 7.1): anything but secret. */
export function createRandom(seed: number): Random {
  let state = seed
  const below = (limit: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
  // The index is below the length; of no items there is none to pick.
  return { below, pick: (items) => items[below(items.length)] as (typeof items)[number] }
}
