/**
 * Owns what the client module goes through on each runtime while its connections are cut: a writer publishes, a reader reads, and what
 * both saw is returned. Plain JavaScript, for a browser runs it too.
 */

/** Real timers are for minutes of bad network. */
const FASTER = 20

/** Messages that are published, some milliseconds apart. */
const COUNT = 300
const APART = 10

/**
 * @param connect that of the client module.
 * @param given url, token, and two channels: kept and plain.
 */
export async function play(connect, { url, token, kept, plain }) {
  const realTimeout = globalThis.setTimeout
  const sleep = (milliseconds) => new Promise((done) => realTimeout(done, milliseconds))
  globalThis.setTimeout = (callback, milliseconds, ...values) => realTimeout(callback, milliseconds / FASTER, ...values)
  const result = { seen: [], acknowledged: [], refused: [], missed: [], lost: 0, plain: [] }
  const writer = connect(url, { getToken: () => token })
  const reader = connect(url, { getToken: async () => token })
  try {
    reader.on('missed', (missed) => result.missed.push(missed))
    for (const client of [writer, reader]) client.on('state', (state) => (result.lost += state === 'waiting' ? 1 : 0))
    const keptEnds = new Promise((done) => {
      reader.subscribe(kept, { last: 1000 }, ({ json }) => {
        result.seen.push(json.payload)
        if (json.payload === 'end') done()
      })
    })
    const plainEnds = new Promise((done) => {
      reader.subscribe(plain, {}, ({ json }) => {
        result.plain.push(json.number)
        if (json.number === 'end') done()
      })
    })
    const publish = (text) =>
      writer.publish(kept, text).then(
        () => result.acknowledged.push(text),
        (error) => result.refused.push(`${text}: ${error.code}`),
      )
    const published = []
    for (let number = 1; number <= COUNT; number++) {
      published.push(publish(String(number)))
      await sleep(APART)
    }
    await Promise.all(published)
    await publish('end')
    await Promise.all([keptEnds, plainEnds])
    return result
  } finally {
    writer.close()
    reader.close()
    globalThis.setTimeout = realTimeout
  }
}
