/** Owns hearing what PostgreSQL notifies, beside the program. */
import type postgres from 'postgres'

export interface Notified extends AsyncDisposable {
  /** What was heard so far, in order. */
  readonly texts: readonly string[]
  /** Resolves when so many were heard. */
  reached(count: number): Promise<void>
}

/** Listens to a channel, and keeps what a test wants of it. */
export async function listenTo(
  sql: postgres.Sql,
  keeps: (text: string) => boolean = () => true,
  channel = 'postgres-websockets-listener',
): Promise<Notified> {
  const texts: string[] = []
  let wanted = Number.POSITIVE_INFINITY
  let reached = (): void => undefined
  const { unlisten } = await sql.listen(channel, (text) => {
    if (keeps(text)) texts.push(text)
    if (texts.length >= wanted) reached()
  })
  return {
    texts,
    reached: (count) =>
      new Promise((resolve) => {
        wanted = count
        reached = resolve
        if (texts.length >= count) resolve()
      }),
    [Symbol.asyncDispose]: unlisten,
  }
}
