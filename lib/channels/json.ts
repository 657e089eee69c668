/**
 * Owns reading the members of a JSON object as text, so that large numbers keep every digit. (JSON.parse would round them.)
 */

/**
 * The members of a JSON object, by name, each value as it stands in the text. Where a name comes twice, the last one counts, as
 * with `JSON.parse`.
 *
 * @param text an object that `JSON.parse` accepts; for any other text the result is meaningless.
 */
export function members(text: string): Map<string, string> {
  const found = new Map<string, string>()
  let at = text.indexOf('{') + 1
  for (;;) {
    const opening = text.indexOf('"', at)
    if (opening === -1) return found
    const nameEnd = endOfString(text, opening)
    const valueStart = text.indexOf(':', nameEnd) + 1
    const valueEnd = endOfValue(text, valueStart)
    // A JSON string parses to a string.
    const name = JSON.parse(text.slice(opening, nameEnd)) as string
    found.set(name, text.slice(valueStart, valueEnd).trim())
    at = valueEnd + 1
  }
}

/** The index behind the string that starts at `opening`. */
function endOfString(text: string, opening: number): number {
  let at = opening + 1
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at + 1
}

/** The index of the comma or the closing brace that ends the value which starts at `start`. */
function endOfValue(text: string, start: number): number {
  let depth = 0
  let at = start
  while (at < text.length) {
    const character = text[at]
    if (character === '"') {
      at = endOfString(text, at)
      continue
    }
    if (depth === 0 && (character === ',' || character === '}')) return at
    if (character === '{' || character === '[') depth++
    if (character === '}' || character === ']') depth--
    at++
  }
  return at
}
