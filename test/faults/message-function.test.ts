import { afterAll, beforeAll, expect, test } from 'bun:test'
import postgres from 'postgres'
import { connect } from '../support/client.ts'
import { converse } from '../support/commands.ts'
import { type Postgres, startPostgres } from '../support/postgres.ts'
import { type Program, start } from '../support/program.ts'
import { createRandom } from '../support/random.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

let server: Postgres
let admin: postgres.Sql
beforeAll(async () => {
  server = await startPostgres()
  admin = postgres(server.uri, { max: 1, onnotice: () => undefined })
  await admin.unsafe(`
    create role websockets login password '${server.password}';
    create table said (n bigserial primary key, payload text, message_id uuid, claims json, by name default current_user, later int);
    create table known (id int primary key);
    alter table said add foreign key (later) references known deferrable initially deferred;
  `)
  for (const role of ROLES) await createRole(role)
  await admin.unsafe(handle())
})
afterAll(async () => {
  await admin.end()
  await server.stop()
})

const ROLES = ['ada', 'bob'] as const

const createRole = (role: string) =>
  admin.unsafe(`
    create role ${role};
    alter role ${role} set statement_timeout = '250ms';
    grant ${role} to websockets;
    grant insert on said to ${role};
    grant usage on sequence said_n_seq to ${role};
    grant select on known to ${role};
  `)

/** Stores ahead of whatever fails, and keeps nothing from being stored twice. */
const handle = (version = 0) => `
  create or replace function handle(channel text, payload text) returns text language plpgsql as $$
  begin
    perform ${version};
    insert into said (payload, message_id, claims, later) values (payload, current_setting('request.pgws.message_id')::uuid,
      current_setting('request.jwt.claims')::json, case when payload like '%late' then 1 end);
    if payload like '%bad' then perform set_config('role', 'websockets', true); raise exception '%', payload; end if;
    if payload like '%slow' then perform pg_sleep(9); end if;
    if payload like '%null' then return null; end if;
    return payload;
  end $$`

/** What a sender's messages ask of the function. */
const manner = (number: number): string =>
  number % 149 === 77 ? 'slow' : number % 37 === 13 ? 'late' : number % 5 === 2 ? 'bad' : number % 7 === 3 ? 'null' : 'good'

const claimsOf = (name: string) => ({ mode: 'rw', channel: name, sub: name, role: name.split('/')[0] })

/** What a sender sent and was told. Its role stands ahead of the slash. */
function createRecord(name: string) {
  const record = {
    name,
    sent: [] as string[],
    published: [] as string[],
    refused: [] as string[],
    /** SQLSTATEs and statuses. */
    codes: new Set<unknown>(),
    next(): string {
      const text = `${name}:${record.sent.length} ${manner(record.sent.length)}`
      record.sent.push(text)
      return text
    },
    told(text: string, refusal: unknown): void {
      if (refusal === undefined) record.published.push(text)
      else record.refused.push(text)
      if (refusal !== undefined) record.codes.add(refusal)
    },
  }
  return record
}

interface Sender {
  readonly record: ReturnType<typeof createRecord>
  /** Sends no more, and waits for every answer. */
  stop(): Promise<void>
}

/** Messages of one sender at pgws.json without an answer at once. */
const IN_FLIGHT = 40

async function startPublisher(program: Program, name: string): Promise<Sender> {
  const record = createRecord(name)
  const connection = await converse(program, { claims: claimsOf(name) })
  let isGoing = true
  const ended = (async () => {
    for (let answered = 0; ; answered++) {
      while (isGoing && record.sent.length < answered + IN_FLIGHT)
        connection.say({ id: record.sent.length, command: 'publish', channel: name, text: record.next() })
      if (answered === record.sent.length) return
      const { id, event, code } = await connection.next()
      expect(id).toBe(answered)
      record.told(record.sent[answered] ?? '', event === 'Published' ? undefined : code)
    }
  })()
  ended.catch(() => undefined)
  return {
    record,
    async stop() {
      isGoing = false
      await ended
      await connection.client.close()
    },
  }
}

async function startPoster(program: Program, name: string): Promise<Sender> {
  const record = createRecord(name)
  const url = `${program.origin.replace('ws:', 'http:')}/${await token(claimsOf(name))}`
  let isGoing = true
  const ended = (async () => {
    while (isGoing) {
      const text = record.next()
      const { status } = await fetch(url, { method: 'POST', body: text })
      record.told(text, status === 204 ? undefined : status)
    }
  })()
  ended.catch(() => undefined)
  return {
    record,
    async stop() {
      isGoing = false
      await ended
    },
  }
}

/** Nobody tells it what was published, and of a refusal it learns only that there was one, and why. */
async function startPlain(program: Program, name: string) {
  const record = createRecord(name)
  const client = await connect(`${program.origin}/${await token(claimsOf(name))}`, { protocols: ['pgws'] })
  const timer = setInterval(() => client.send(record.next()), 5)
  const reasons: unknown[] = []
  const ended = (async () => {
    for (;;) {
      const { event, reason } = JSON.parse(await client.next())
      if (event === 'MessageRefused') reasons.push(reason)
    }
  })().catch(() => undefined)
  return {
    record,
    reasons,
    /** Its last message is refused. Then all ahead of it are settled. */
    async stop() {
      clearInterval(timer)
      let last = ''
      while (!last.endsWith('bad')) {
        last = record.next()
        client.send(last)
      }
      await until(() => reasons.includes(last))
      await client.close()
      await ended
    },
  }
}

const endLanes = () => admin`
  select pg_terminate_backend(pid) from pg_stat_activity where usename = 'websockets' and query like '%pgws.%'`

const endAll = () => admin`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'websockets'`

interface Stored {
  readonly payload: string
  readonly message_id: string
  readonly claims: Record<string, unknown>
  readonly by: string
}

/** What is stored, each message once. Copies of one have one id. */
async function readStored(): Promise<Map<string, Stored>> {
  const stored = new Map<string, Stored>()
  const ids = new Set<string>()
  for (const row of await admin<Stored[]>`select payload, message_id, claims, by from said order by n`) {
    const first = stored.get(row.payload)
    if (first) expect(row).toEqual(first)
    else stored.set(row.payload, row)
    ids.add(row.message_id)
  }
  expect(ids.size).toBe(stored.size)
  return stored
}

test('through killed sessions, a changed function, a dropped role and a restart, the tables hold what each sender was told', async () => {
  const random = createRandom(18)
  await using program = await start({
    PGWS_DB_URI: server.uri.replace('//postgres:', '//websockets:'),
    PGWS_MESSAGE_FUNCTION: 'public.handle',
    PGWS_JWT_ROLE_CLAIM: 'role',
    PGWS_POOL_SIZE: '4',
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
  })
  const names = (door: string) => ROLES.flatMap((role) => [`${role}/${door}-1`, `${role}/${door}-2`])
  const publishers = await Promise.all(names('json').map((name) => startPublisher(program, name)))
  const senders = [...publishers, ...(await Promise.all(names('post').map((name) => startPoster(program, name))))]
  const plain = await Promise.all(names('plain').map((name) => startPlain(program, name)))

  const outcomes = () => senders.map(({ record }) => record.published.length + record.refused.length)
  /** Until all that was under way is answered: what a fault does to it is not mixed with the next one. */
  const goesOn = async () => {
    const before = outcomes()
    const due = senders.map((sender, index) => (before[index] ?? 0) + (publishers.includes(sender) ? IN_FLIGHT : 1))
    await until(() => outcomes().every((count, index) => count > (due[index] ?? 0)))
  }
  const isTold = (role: string, codes: readonly unknown[]) =>
    until(() => senders.every(({ record }) => !record.name.startsWith(role) || codes.some((code) => record.codes.has(code))))

  await goesOn()
  for (let kill = 0; kill < 12; kill++) {
    await (kill % 6 === 5 ? endAll() : endLanes())
    await Bun.sleep(random.below(60))
  }
  await goesOn()
  for (let version = 1; version < 10; version++) await admin.unsafe(handle(version))
  await admin`drop function handle`
  await isTold('', ['42883', 400])
  await admin.unsafe(handle())
  await goesOn()
  await admin.unsafe('drop owned by bob; drop role bob')
  await isTold('bob', ['42501', 403])
  await createRole('bob')
  await goesOn()
  await endLanes()
  await server.stop('immediate')
  await Bun.sleep(200)
  await server.start()
  await goesOn()

  await Promise.all([...senders, ...plain].map((sender) => sender.stop()))
  const ofSender = (name: string) => [...stored.keys()].filter((payload) => payload.startsWith(`${name}:`))
  const stored = await readStored()
  for (const { record } of senders) {
    expect(record.published.length + record.refused.length).toBe(record.sent.length)
    expect(ofSender(record.name)).toEqual(record.published)
    expect(record.published.length).toBeGreaterThan(10)
  }
  for (const { record, reasons } of plain) {
    const own = ofSender(record.name)
    const kept = new Set(own)
    expect(own).toEqual(record.sent.filter((text) => kept.has(text)))
    expect(own.length + reasons.length).toBe(record.sent.length)
  }
  for (const { payload, claims, by } of stored.values()) {
    const [name = ''] = payload.split(':')
    expect([claims, by]).toEqual([claimsOf(name), name.split('/')[0] ?? ''])
    expect(payload).not.toMatch(/(bad|late|slow)$/)
  }
  const codes = new Set(publishers.flatMap(({ record }) => [...record.codes]))
  expect(codes).toEqual(new Set(['P0001', '23503', '57014', '42883', '42501']))
}, 60_000)
