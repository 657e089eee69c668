/** PGWS_MESSAGE_FUNCTION beside the journal, and beside a listener that is lost. */
import { beforeAll, expect, test } from 'bun:test'
import { connect } from '../support/client.ts'
import { withJournalServer } from '../support/journal-server.ts'
import { start } from '../support/program.ts'
import { token, tokenOfText } from '../support/token.ts'

const server = withJournalServer()
const claims = (channel: string) => token({ mode: 'rw', channel, role: 'member' })

let variables: Record<string, string>
beforeAll(async () => {
  const { journal } = server
  await journal.sql.unsafe(`
    create role member;
    create role websockets login password '${journal.server.password}';
    grant member to websockets;
    grant usage on schema pgws to websockets;
    grant execute on all functions in schema pgws to websockets;
    create table said (n bigserial, payload text);
    grant insert on said to member;
    grant usage on sequence said_n_seq to member;
    create function handle(channel text, payload text) returns text language plpgsql as $$
    begin
      insert into said (payload) values (payload);
      if payload = 'bad' then raise exception 'bad'; end if;
      if payload = 'claims' then return current_setting('request.jwt.claims'); end if;
      if payload = 'long' then return repeat('x', 20000); end if;
      return nullif(upper(payload), 'NULL');
    end $$;
  `)
  variables = {
    PGWS_DB_URI: journal.uri.replace('//postgres:', '//websockets:'),
    PGWS_JWT_ROLE_CLAIM: 'role',
    PGWS_MESSAGE_FUNCTION: 'public.handle',
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
  }
})

const post = async (origin: string, given: string, body: string, headers = {}): Promise<number> =>
  (await fetch(`${origin.replace('ws:', 'http:')}/${given}`, { method: 'POST', body, headers })).status

test('on a channel with history, what the function returns is kept, whatever the role may do, and a refusal is not', async () => {
  await using program = await start({ ...variables, PGWS_JOURNAL: 'True', PGWS_JOURNAL_CHANNELS: 'kept-*' })
  const given = await claims('kept-chat')
  await using reader = await connect(`${program.origin}/${given}`)
  const statuses: number[] = []
  for (const text of ['one', 'bad', 'null', 'long', 'two']) statuses.push(await post(program.origin, given, text))
  for (const text of ['first', 'second']) statuses.push(await post(program.origin, given, text, { 'Idempotency-Key': '"k"' }))
  expect(statuses).toEqual([204, 400, 204, 204, 204, 204, 204])
  const published = ['ONE', 'x'.repeat(20_000), 'TWO', 'FIRST']
  expect((await reader.take(4)).map((text) => JSON.parse(text).payload)).toEqual(published)
  await using late = await connect(`${program.origin}/${given}?last=10`)
  expect((await late.take(4)).map((text) => JSON.parse(text).payload)).toEqual(published)
})

test('the function sees the claims digit for digit, in the order of the token', async () => {
  await using program = await start(variables)
  const text = `{"mode":"rw","z":12345678901234567890,"channel":"digits","x":1.50,"role":"member","a":"\\u00e9 ' \\\\ \\" {},"}`
  await using client = await connect(`${program.origin}/${tokenOfText(text)}`)
  client.send('claims')
  expect(JSON.parse(await client.next()).payload).toBe(text)
})

test('while the listener is away no message is handled, and then each one reaches its readers', async () => {
  const { sql } = server.journal
  await using program = await start(variables)
  const given = await claims('held')
  await using reader = await connect(`${program.origin}/${given}`)
  expect(await post(program.origin, given, 'before')).toBe(204)
  expect(JSON.parse(await reader.next()).payload).toBe('BEFORE')
  await sql`alter role websockets nologin`
  // The session in which the function is called stays.
  await sql`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'websockets' and query <> 'commit'`
  await program.logged(/listener lost/)
  const answer = post(program.origin, given, 'held')
  reader.send('held too')
  expect(await Promise.race([answer, Bun.sleep(300)])).toBeUndefined()
  expect(await sql`select from said where payload like 'held%'`).toHaveLength(0)
  expect(await sql`select from pg_stat_activity where usename = 'websockets' and query = 'commit'`).toHaveLength(1)
  await sql`alter role websockets login`
  expect(await answer).toBe(204)
  const payloads = (await reader.take(2)).map((text) => JSON.parse(text).payload)
  expect(payloads.toSorted()).toEqual(['HELD', 'HELD TOO'])
})
