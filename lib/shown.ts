/** Owns how text from clients appears in the log: shortened, and without tokens. Pure. */

/** The most characters of one value in a line. */
const LENGTH = 100

/** The most channels in a line. A token may name thousands. */
const CHANNELS = 10

/** The beginning of a token, which is a JSON object in base64url, or a token's three parts. */
const TOKEN = /(?<![\w-])e[w-z][\w-]{14}|(?<![\w-])[\w-]{14,}\.[\w-]{14,}\.[\w-]{14}/

const HIDDEN = '[token]'

export function shown(word: string): string {
  if (TOKEN.test(word) || TOKEN.test(decoded(word))) return HIDDEN
  return cut(word)
}

export const shownChannels = (channels: readonly string[]): string =>
  channels.slice(0, CHANNELS).map(shown).join(',') + (channels.length > CHANNELS ? `,… (${channels.length})` : '')

/** @param token the segment in the token's place. It is hidden even where it does not look like a token. */
export const shownPath = (path: string, token: string | undefined): string =>
  cut(
    path
      .split('/')
      .map((segment) => (segment !== '' && segment === token ? HIDDEN : shown(segment)))
      .join('/'),
  )

const cut = (text: string): string => (text.length > LENGTH ? `${text.slice(0, LENGTH)}…` : text)

function decoded(word: string): string {
  try {
    return decodeURIComponent(word)
  } catch {
    return word
  }
}
