/** Owns the log's lines: one an event, with a level and fields. Tokens, secrets and passwords are no fields. */

export type Level = 'error' | 'warning' | 'info' | 'debug'

export type Fields = Readonly<Record<string, string | number | boolean>>

/** `log.info('listening', { channel })` */
export type Log = { readonly [level in Level]: (event: string, fields?: Fields) => void }

/**
 * @param write takes a line, without its end.
 */
export function createLog(write: (line: string) => void): Log {
  const at =
    (level: Level) =>
    (event: string, fields: Fields = {}): void =>
      write([`${level}: ${event}`, ...Object.entries(fields).map(([name, value]) => `${name}=${quoted(value)}`)].join(' '))
  return { error: at('error'), warning: at('warning'), info: at('info'), debug: () => undefined }
}

/** A value as one word: text with spaces, quotes or control characters stands as a JSON string. */
function quoted(value: string | number | boolean): string {
  const text = String(value)
  return /^[^\s"=\p{C}]+$/u.test(text) ? text : JSON.stringify(text)
}
