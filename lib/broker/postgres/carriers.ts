/** Owns the statements that take a batch of messages into PostgreSQL: NOTIFY, and the journal. */

import type { Envelope } from '../../channels/envelope.ts'

export interface Carrier {
  /**
   * Takes a batch that follows another ($1, that one's number) only if that one was taken, so that nothing overtakes: what is set
   * rolls back with a failed statement. Answers with the batch's own number ($2) when it was taken.
   */
  readonly statement: string
  /** What stands behind the two numbers. @param first the number of the first message; those of a pipeline are consecutive. */
  parameters(messages: readonly Envelope[], texts: readonly string[], first: number): readonly string[]
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

/** The database keeps how far this process has come, so that what is sent again, for its answer was lost, is published once. */
export function createKeeping(): Carrier {
  const sender = crypto.randomUUID()
  return {
    statement: `select set_config('pgws.batch', $2, false) as taken,
      pgws.publish_batch($3::text::uuid, $4::text::bigint, array(select json_array_elements_text($5::text::json)),
        string_to_array($6, '${SEPARATOR}'), array(select json_array_elements_text($7::text::json)))
      where $1 = '' or (select current_setting('pgws.batch', true)) = $1`,
    parameters: (messages, texts, first) => [
      sender,
      String(first),
      JSON.stringify(messages.map(({ channel }) => channel)),
      texts.join(SEPARATOR),
      messages.some(({ key }) => key !== undefined) ? JSON.stringify(messages.map(({ key }) => key ?? null)) : '[]',
    ],
  }
}
