/** Owns the statements that take a batch of messages into PostgreSQL: NOTIFY, and the journal. */

import type { Envelope } from '../../channels/envelope.ts'

export interface Carrier {
  /**
   * Takes a batch that follows another ($1, that one's number) only if that one was taken, so that nothing overtakes: what is set
   * rolls back with a failed statement. Answers with the batch's own number ($2) when it was taken.
   */
  readonly statement: string
  /** What stands behind the two numbers. */
  parameters(messages: readonly Envelope[], texts: readonly string[]): readonly string[]
}

/** Stands between the texts of a batch. JSON text never holds it: RFC 8259 has control characters escaped in strings. */
const SEPARATOR = '\u0001'

/** @param channel the database channel that carries every message. */
export const createNotifying = (channel: string): Carrier => ({
  statement: `select set_config('pgws.batch', case when count(pg_notify($3, notification)) > 0 then $2 else '' end, false) as taken
    from unnest(string_to_array($4, '${SEPARATOR}')) as notification
    where $1 = '' or (select current_setting('pgws.batch', true)) = $1`,
  parameters: (_, texts) => [channel, texts.join(SEPARATOR)],
})

/** Each text has a key, its sender's or one of ours, so that one that is sent again, for its answer was lost, is published once. */
export function createKeeping(): Carrier {
  const sender = crypto.randomUUID()
  return {
    statement: `select set_config('pgws.batch', case when count(pgws.publish(m.channel, m.payload, m.key)) > 0 then $2 else '' end, false) as taken
      from unnest(
        array(select json_array_elements_text($3::text::json)), string_to_array($4, '${SEPARATOR}'), array(select json_array_elements_text($5::text::json))
      ) as m(channel, payload, key)
      where $1 = '' or (select current_setting('pgws.batch', true)) = $1`,
    parameters: (messages, texts) => [
      JSON.stringify(messages.map(({ channel }) => channel)),
      texts.join(SEPARATOR),
      JSON.stringify(messages.map(({ key, head }, index) => key ?? `${sender} ${stampIn(texts[index] ?? '', head)}`)),
    ],
  }
}

/** The time stamp of a text, of which no two of a process have the same. */
const stampIn = (text: string, head: string): string => text.slice(head.length, text.indexOf('}', head.length))
