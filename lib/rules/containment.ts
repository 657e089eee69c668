/** Owns whether claims contain others, exactly as PostgreSQL's jsonb decides it with `@>`. Pure. */

export type Json = string | boolean | null | readonly Json[] | { readonly [name: string]: Json }

const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g

/** A number is kept as a text that begins like this. No text of jsonb does. */
const NUMBER = String.raw`\u0000`

/** Reads JSON with every digit of its numbers. @param text one that `JSON.parse` accepts. */
export function readJson(text: string): Json {
  const exact = text.replaceAll(TOKENS, (token) => (token.startsWith('"') ? token : `"${NUMBER}${canonical(token)}"`))
  // Without numbers, JSON is of this type.
  return JSON.parse(exact) as Json
}

/** One text for all ways to write a number: digits without zeros around them, and the power of ten that they are multiplied with. */
function canonical(number: string): string {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE](.*))?$/.exec(number) ?? []
  const digits = (whole + fraction).replace(/^0+/, '')
  const significant = digits.replace(/0+$/, '')
  if (significant === '') return '0'
  return `${sign}${significant}e${Number(exponent) - fraction.length + digits.length - significant.length}`
}

export const isScalar = (value: Json): value is string | boolean | null => typeof value !== 'object' || value === null

/** Whether one value contains the other, below the top of jsonb (manual, "jsonb Containment and Existence"). */
export function contains(outer: Json, inner: Json): boolean {
  if (isScalar(outer) || isScalar(inner)) return outer === inner
  if (isList(inner)) return isList(outer) && inner.every((wanted) => outer.some((value) => contains(value, wanted)))
  if (isList(outer)) return false
  return Object.entries(inner).every(([name, wanted]) => {
    const value = Object.hasOwn(outer, name) ? outer[name] : undefined
    return value !== undefined && contains(value, wanted)
  })
}

const isList = (value: Exclude<Json, string | boolean | null>): value is readonly Json[] => Array.isArray(value)
