/** Owns a load on a server: clients and SQL send numbered messages until they are told to stop, and readers that are held to them. */
import postgres from 'postgres'
import { connect } from './client.ts'
import type { Ledger, View } from './ledger.ts'
import type { Witness } from './witness.ts'

export interface Sender {
  /** Ends it; what it sent counts as accepted where its end was orderly. */
  stop(): Promise<void>
}

export interface Reader {
  /** Ends it. It is held to all that was committed until now, or, where its connection broke, up to the last it has seen. */
  stop(): Promise<void>
}

/** Milliseconds between two handfuls of messages, unless others are asked for. */
const PACE = 5

/** What a channel's name begins with that is the database's own. */
export const DIRECT = 'db-'

export interface WriterOptions {
  /** Messages sent at once. Default 5. */
  readonly handful?: number
  /** Milliseconds between two handfuls. Default 5. */
  readonly pace?: number
  readonly ca?: string
  /** What the messages are accepted by. */
  readonly home?: object
}

/** A client that writes. It ends as well when its connection does. */
export async function startWriter(url: string, name: string, ledger: Ledger, options: WriterOptions = {}): Promise<Sender> {
  const { handful = 5, pace = PACE, ca, home } = options
  const client = await connect(url, ca === undefined ? {} : { ca })
  let isGoing = true
  const closed = client.closed.finally(() => {
    isGoing = false
  })
  const going = (async () => {
    while (isGoing) {
      for (let index = 0; index < handful; index++) client.send(ledger.next(name))
      await Promise.race([Bun.sleep(pace), closed])
    }
  })()
  return {
    async stop() {
      const wasGoing = isGoing
      isGoing = false
      await going
      await client.close(1000)
      // A server that closed first may not have read all that was sent.
      if (wasGoing && (await closed).code === 1000) ledger.settle(name, home)
    },
  }
}

/** A notification to a channel, of the database's own or by way of the listen channel. */
const notificationTo = (channel: string, text: string) => ({
  channel: channel.startsWith(DIRECT) ? channel : 'postgres-websockets-listener',
  notification: text,
})

/**
 * SQL that notifies channels in turn, a handful a transaction. A session without an answer may have committed: another goes on as
 * another sender.
 */
export function startSql(
  uri: string,
  channels: readonly string[],
  name: string,
  ledger: Ledger,
  { handful = HANDFUL, pace = PACE }: Pick<WriterOptions, 'handful' | 'pace'> = {},
): Sender {
  let sessions = 0
  let turn = 0
  let isGoing = true
  const open = () =>
    postgres(uri, { max: 1, onnotice: () => undefined, connect_timeout: 1, connection: { lock_timeout: ANSWER } })

  function nextOnes(): ReturnType<typeof notificationTo>[] {
    return Array.from({ length: Math.min(channels.length, handful) }, () => {
      const channel = channels[turn++ % channels.length] ?? ''
      const payload = ledger.next(`${name}.${sessions}@${channel}`)
      return notificationTo(channel, JSON.stringify({ event: 'WebsocketMessage', channel, payload }))
    })
  }

  async function session(): Promise<void> {
    sessions++
    const sql = open()
    try {
      while (isGoing) {
        const sending = nextOnes()
        const sent = sql`select pg_notify(channel, notification) from unnest(
          ${sending.map(({ channel }) => channel)}::text[], ${sending.map(({ notification }) => notification)}::text[]
        ) as given (channel, notification)`.then(
          () => true,
          () => false,
        )
        // A session that dies at the wrong moment leaves a statement of postgres.js without an answer.
        if (!(await Promise.race([sent, Bun.sleep(ANSWER).then(() => false)]))) return
        await Bun.sleep(pace)
      }
    } finally {
      void sql.end({ timeout: 0 })
    }
  }

  const going = (async () => {
    while (isGoing) {
      await session()
      if (isGoing) await Bun.sleep(50)
    }
  })()
  return {
    async stop() {
      isGoing = false
      await going
    },
  }
}

/** Notifications of a transaction at most, unless others are asked for. */
const HANDFUL = 50

/** Milliseconds for the answer to a transaction. */
const ANSWER = 1000

/** Milliseconds after which what is not there is missing. */
const PATIENCE = 20_000

/** A client that reads, and is told what it may have missed. */
export async function openReader(
  url: string,
  channels: readonly string[],
  ledger: Ledger,
  witness: Witness,
  ca?: string,
): Promise<Reader> {
  const client = await connect(url, { protocols: ['pgws'], ...(ca === undefined ? {} : { ca }) })
  const view: View = ledger.view(channels)
  let isOpen = true
  void client.closed.then(() => {
    isOpen = false
  })
  const reading = (async () => {
    for (;;) {
      const text = await client.next().catch(() => undefined)
      if (text === undefined) return
      view.receive(text)
    }
  })()

  /** Marks all channels, again and again until that is known to be committed. */
  async function mark(): Promise<{ marks: readonly string[]; from: number; to: number } | undefined> {
    while (isOpen) {
      const marks = channels.map((channel) => ledger.mark(channel))
      const from = Date.now()
      const isCommitted = await witness.notify(marks.map((text, index) => notificationTo(channels[index] ?? '', text))).then(
        () => true,
        () => false,
      )
      if (isCommitted) return { marks, from, to: Date.now() }
      await Bun.sleep(100)
    }
    return undefined
  }

  return {
    async stop() {
      const marked = await mark()
      if (marked !== undefined) {
        const { marks, from, to } = marked
        const end = Date.now() + PATIENCE
        while (isOpen && Date.now() < end && !marks.every((text) => view.hasSeen(text, from, to))) await Bun.sleep(20)
        if (isOpen) view.due(marks)
      }
      await client.close()
      await reading
    },
  }
}

/** What was committed, once all is there that was accepted, or after a while. */
export async function settledTruth(ledger: Ledger, witness: Witness): ReturnType<Witness['read']> {
  const end = Date.now() + PATIENCE
  for (;;) {
    const truth = await witness.read()
    if (Date.now() > end || ledger.missing(truth).length === 0) return truth
    await Bun.sleep(200)
  }
}
