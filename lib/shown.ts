/** Owns how words of a client stand in the log: cut where they are long, and no token among them. Pure. */

/** The most characters that one word takes of a line. */
const LENGTH = 100

/** Channels that are shown of one connection, whose token may name thousands. */
const CHANNELS = 10

/** The beginning of a token, which is an object of JSON in base64url, or the three parts of one. */
const TOKEN = /(?<![\w-])e[w-z][\w-]{14}|(?<![\w-])[\w-]{14,}\.[\w-]{14,}\.[\w-]{14}/

const HIDDEN = '[token]'

export function shown(word: string): string {
  if (TOKEN.test(word) || TOKEN.test(decoded(word))) return HIDDEN
  return cut(word)
}

export const shownChannels = (channels: readonly string[]): string =>
  channels.slice(0, CHANNELS).map(shown).join(',') + (channels.length > CHANNELS ? `,… (${channels.length})` : '')

/** @param token what stood in the place of the token, though it may look like none. */
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
