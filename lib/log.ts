/** Owns the log's lines: one for each event, with a level and fields. Tokens, secrets and passwords are never fields. */

const levels = ['error', 'warning', 'info', 'debug'] as const

export type Level = (typeof levels)[number]

export type Fields = Readonly<Record<string, string | number | boolean>>

/** `log.info('listening', { channel })`. Fields that cost something to make are given by a function, called where the line is written. */
export type Log = { readonly [level in Level]: (event: string, fields?: Fields | (() => Fields)) => void }

export interface LogOptions {
  /** Events of this level and of more severe ones are written. Default `info`. */
  readonly level?: Level
  /** Default `text`. */
  readonly format?: 'text' | 'json'
  /** The current time, as lines show it; undefined leaves it out, for readers that add it themselves. */
  readonly time?: () => string | undefined
  /** Takes a line, without its newline. */
  readonly write: (line: string) => void
}

export function createLog({ level = 'info', format = 'text', time = () => undefined, write }: LogOptions): Log {
  const line = format === 'json' ? asJson : asText
  const at = (own: Level): Log[Level] =>
    levels.indexOf(own) > levels.indexOf(level)
      ? () => undefined
      : (event, fields = {}) => write(line(time(), own, event, typeof fields === 'function' ? fields() : fields))
  return { error: at('error'), warning: at('warning'), info: at('info'), debug: at('debug') }
}

function asText(time: string | undefined, level: Level, event: string, fields: Fields): string {
  const pairs = Object.entries(fields).map(([name, value]) => `${name}=${quoted(value)}`)
  return [...(time === undefined ? [] : [time]), `${level}: ${event}`, ...pairs].join(' ')
}

function asJson(time: string | undefined, level: Level, event: string, fields: Fields): string {
  return json({ ...(time === undefined ? {} : { time }), level, event, ...fields })
}

/** A value as one word. Text with spaces, quotes or invisible characters is written as a JSON string. */
function quoted(value: string | number | boolean): string {
  const text = String(value)
  return /^[^\s"=\p{C}]+$/u.test(text) ? text : json(text)
}

/** Characters that JSON leaves as they are, though they control a terminal, break a line or reverse its direction. They are escaped too. */
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]/gu

const json = (value: string | object): string =>
  JSON.stringify(value).replace(UNSEEN, (found) =>
    Array.from({ length: found.length }, (_, index) => `\\u${found.charCodeAt(index).toString(16).padStart(4, '0')}`).join(''),
  )
