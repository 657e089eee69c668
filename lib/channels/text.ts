/** Owns how bytes are read as text. Pure. */

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The text of a message; undefined where it is not UTF-8. */
export function decode(message: string | Uint8Array): string | undefined {
  if (typeof message === 'string') return message
  try {
    return utf8.decode(message)
  } catch {
    return undefined
  }
}
