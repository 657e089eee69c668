/** Owns a load on a server: clients and SQL send numbered messages until they are told to stop. */
import postgres from 'postgres'
import { connect } from './client.ts'
import type { Ledger, Result } from './ledger.ts'

export interface Sender {
  /** Ends it; what it sent counts as accepted where its end was orderly. */
  stop(): Promise<void>
}

/** Milliseconds between two handfuls of messages. */
const PACE = 5

/** A client that writes. It ends as well when its connection does. */
export async function startWriter(url: string, name: string, ledger: Ledger, handful = 5): Promise<Sender> {
  const client = await connect(url)
  let isGoing = true
  const closed = client.closed.finally(() => {
    isGoing = false
  })
  const going = (async () => {
    while (isGoing) {
      for (let index = 0; index < handful; index++) client.send(ledger.next(name))
      await Bun.sleep(PACE)
    }
  })()
  return {
    async stop() {
      const wasGoing = isGoing
      isGoing = false
      await going
      await client.close(1000)
      // A server that closed first may not have read all that was sent.
      if (wasGoing && (await closed).code === 1000) ledger.settle(name)
    },
  }
}

/** SQL that notifies. While the database is away it tries again with the same text, for the answer may be all that was lost. */
export function startSql(uri: string, channel: string, name: string, ledger: Ledger): Sender {
  // A session that dies at the wrong moment leaves a statement of postgres.js without an answer: each attempt has its time.
  const open = () => postgres(uri, { max: 1, onnotice: () => undefined, connect_timeout: 1 })
  let sql = open()
  const send = (text: string): Promise<boolean> => {
    const sent = sql.notify('postgres-websockets-listener', text).then(
      () => true,
      () => false,
    )
    return Promise.race([sent, Bun.sleep(1000).then(() => false)])
  }
  let isGoing = true
  const going = (async () => {
    while (isGoing) {
      const payload = ledger.next(name)
      const text = JSON.stringify({ event: 'WebsocketMessage', channel, payload })
      while (!(await send(text))) {
        void sql.end({ timeout: 0 })
        sql = open()
        await Bun.sleep(50)
      }
      await Bun.sleep(PACE)
    }
  })()
  return {
    async stop() {
      isGoing = false
      await going
      ledger.settle(name)
      await sql.end({ timeout: 1 })
    },
  }
}

export interface Reader {
  /** Resolves when it has seen the end of every sender that was settled, or after a while. From then on it is held against these ends. */
  whole(): Promise<void>
  stop(): Promise<Result>
}

/** Milliseconds after which what is not there is missing. */
const PATIENCE = 20_000

/** A client that reads, and is told what it may have missed. */
export async function openReader(url: string, ledger: Ledger): Promise<Reader> {
  const client = await connect(url, { protocols: ['pgws'] })
  const view = ledger.view()
  let isOpen = true
  let isDue = false
  void client.closed.then(() => {
    isOpen = false
  })
  const reading = (async () => {
    while (isOpen) {
      const text = await client.next().catch(() => undefined)
      if (text !== undefined) view.receive(text)
    }
  })()
  return {
    async whole() {
      const end = Date.now() + PATIENCE
      while (isOpen && !view.isWhole() && Date.now() < end) await Bun.sleep(20)
      isDue = true
    },
    async stop() {
      const result = view.result(isOpen && isDue)
      await client.close()
      await reading
      return result
    },
  }
}
