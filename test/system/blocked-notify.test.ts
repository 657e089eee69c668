import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { connect, payloadOf } from '../support/client.ts'
import { BLOCKABLE, blockNotify } from '../support/faults.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { start } from '../support/program.ts'
import { token } from '../support/token.ts'

let server: Postgres
let admin: postgres.Sql
beforeAll(async () => {
  server = await startPostgres({ settings: BLOCKABLE })
  admin = postgres(server.uri, { max: 1 })
})
afterAll(async () => {
  await admin.end()
  await server.stop()
})

/** The sessions of the program, and those of them that send. */
async function sessions(): Promise<{ readonly all: number; readonly sending: number }> {
  const [row] = await admin`select count(*)::int as all, count(*) filter (where query like '%pg_notify(%')::int as sending
    from pg_stat_activity where application_name = 'postgres-websockets'`
  return { all: row?.all, sending: row?.sending }
}

test.each([1000])(
  'a NOTIFY that is blocked in the database takes no more than two sending sessions, and its messages arrive (interval %i)',
  async (interval) => {
    await using program = await start({ PGWS_DB_URI: server.uri, PGWS_CHECK_LISTENER_INTERVAL: String(interval) })
    await using client = await connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)
    client.send('before')
    await client.next()
    const release = await blockNotify(server)
    const most = { all: 0, sending: 0 }
    const texts = Array.from({ length: 15 }, (_, index) => `message ${index}`)
    for (const text of texts) {
      client.send(text)
      const now = await sessions()
      most.all = Math.max(most.all, now.all)
      most.sending = Math.max(most.sending, now.sending)
      await Bun.sleep(200)
    }
    await release()
    client.send('the end')
    const copies = new Map<string, string[]>()
    while (!copies.has('the end')) {
      const text = await client.next()
      copies.set(payloadOf(text), [...(copies.get(payloadOf(text)) ?? []), text])
    }
    expect([...copies.keys()]).toEqual([...texts, 'the end'])
    for (const same of copies.values()) {
      expect(new Set(same).size).toBe(1)
      expect(same.length).toBeLessThanOrEqual(2)
    }
    expect(most.sending).toBeLessThanOrEqual(2)
    // Beside them one that LISTENs, and one at most that asks what is the matter.
    expect(most.all).toBeLessThanOrEqual(4)
    const left = await sessions()
    expect(left.all).toBeLessThanOrEqual(3)
  },
)
