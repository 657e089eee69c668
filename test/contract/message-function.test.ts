/** PGWS_MESSAGE_FUNCTION: what clients send is handled by a function of the database. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { connect } from '../support/client.ts'
import { converse } from '../support/commands.ts'
import { launch, type Program, start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { token } from '../support/token.ts'

const id = unique('mf').replaceAll('-', '_')
const role = `${id}_member`
const stranger = `${id}_stranger`
let program: Program
let http: string

const claims = (sub: string, more = {}) => token({ mode: 'rw', sub, role, ...more })

const post = async (channel: string, text: string, given: string) => {
  const answer = await fetch(`${http}/${channel}/${given}`, { method: 'POST', body: text })
  return [answer.status, await answer.text()]
}

beforeAll(async () => {
  await sql().unsafe(`
    create schema ${id};
    create role ${role};
    create role ${stranger};
    create table ${id}.said (n bigserial, channel text, payload text, claims json, message_id text, by name default current_user, later text);
    create table ${id}.known (name text primary key);
    alter table ${id}.said add foreign key (later) references ${id}.known deferrable initially deferred;
    alter table ${id}.said enable row level security;
    create policy own on ${id}.said to ${role} with check (claims ->> 'sub' = current_setting('request.jwt.claims')::json ->> 'sub');
    grant usage on schema ${id} to ${role};
    grant insert on ${id}.said to ${role};
    grant select on ${id}.known to ${role};
    grant usage on all sequences in schema ${id} to ${role};
    create function ${id}.handle(channel text, payload text) returns text language plpgsql as $$
    declare claims json := current_setting('request.jwt.claims');
    begin
      if current_setting('search_path') = 'nowhere' then raise exception 'the path of another call'; end if;
      if payload = 'nothing' then return null; end if;
      if payload = 'large' then insert into ${id}.said (payload, claims) values (payload, claims); return repeat('x', 8000); end if;
      if payload = 'rights' then perform 1 from ${id}.said; end if;
      if payload = 'other' then claims := '{"sub":"other"}'; end if;
      if payload like 'sleep %' then perform pg_sleep(split_part(payload, ' ', 2)::float8); end if;
      if payload = 'assert' then assert false, 'asserted'; end if;
      if payload = 'escape' then
        perform set_config('role', 'none', false), set_config('search_path', 'nowhere', false), set_config('request.jwt.claims', '{}', false);
        return 'escaped';
      end if;
      insert into ${id}.said (channel, payload, claims, message_id, later)
        values (channel, payload, claims, current_setting('request.pgws.message_id'), case when payload = 'deferred' then 'unknown' end);
      if payload like 'bad%' then raise exception 'not %', payload using errcode = 'PB001'; end if;
      return upper(payload);
    end $$;
    alter role ${role} set statement_timeout = '300ms';
  `)
  program = await start({
    PGWS_DB_URI: database().uri,
    PGWS_MESSAGE_FUNCTION: `${id}.handle`,
    PGWS_JWT_ROLE_CLAIM: 'role',
    PGWS_ADMIN_PORT: '0',
  })
  http = program.origin.replace('ws:', 'http:')
})
afterAll(() => program.stop())

const stored = async (channel: string): Promise<string[]> =>
  (await sql().unsafe(`select payload from ${id}.said where channel = $1 order by n`, [channel])).map(({ payload }) => payload)

test('what the function returns is published in the envelope, and what it does commits with it', async () => {
  const given = await claims('ada', { big: '' })
  await using client = await connect(`${program.origin}/one/${given}`)
  client.send('hello "you" 💬\\')
  expect(JSON.parse(await client.next())).toEqual({
    claims: { mode: 'rw', sub: 'ada', role, big: '', message_delivered_at: expect.any(Number) },
    event: 'WebsocketMessage',
    payload: 'HELLO "YOU" 💬\\',
    channel: 'one',
  })
  const [row] = await sql().unsafe(`select payload, by, message_id, claims::text from ${id}.said where channel = 'one'`)
  expect({ ...row }).toEqual({
    payload: 'hello "you" 💬\\',
    by: role,
    message_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
    claims: expect.stringContaining('"sub":"ada"'),
  })
})

test('a POST is answered with what the function says', async () => {
  const given = await claims('ada')
  expect(await post('posts', 'hello', given)).toEqual([204, ''])
  expect(await post('posts', 'nothing', given)).toEqual([204, ''])
  expect(await post('posts', 'bad', given)).toEqual([400, 'not bad'])
  expect(await post('posts', 'rights', given)).toEqual([403, 'permission denied for table said'])
  expect(await post('posts', 'other', given)).toEqual([403, expect.stringContaining('row-level security')])
  expect(await post('posts', 'assert', given)).toEqual([400, 'asserted'])
  expect(await post('posts', 'deferred', given)).toEqual([400, expect.stringMatching(/^insert or update on table .*foreign key/)])
  expect((await post('posts', 'large', given))[0]).toBe(413)
  expect(await post('posts', 'sleep 9', given)).toEqual([400, expect.stringContaining('statement timeout')])
  expect(await stored('posts')).toEqual(['hello'])
})

test('a token without the role is refused, and a role that cannot be taken or may not call refuses the message', async () => {
  expect(await post('roles', 'x', await token({ mode: 'rw' }))).toEqual([403, 'Missing role'])
  expect(await post('roles', 'x', await token({ mode: 'rw', role: 'nobody-there' }))).toEqual([
    403,
    'role "nobody-there" does not exist',
  ])
  expect((await post('roles', 'x', await token({ mode: 'rw', role: stranger })))[0]).toBe(403)
  expect(await stored('roles')).toEqual([])
})

describe('a refusal', () => {
  test('concerns its message alone, in the order of the publishes at pgws.json', async () => {
    await using client = await converse(program, { claims: { mode: 'rw', sub: 'ada', role } })
    const texts = ['a', 'bad b', 'nothing', 'deferred', 'large', 'c']
    const answers = client.take(texts.length)
    for (const [n, text] of texts.entries()) client.say({ id: n, command: 'publish', channel: 'json', text })
    expect(await answers).toEqual([
      { id: 0, event: 'Published', channel: 'json' },
      { id: 1, event: 'Refused', code: 'PB001', reason: 'not bad b' },
      { id: 2, event: 'Published', channel: 'json' },
      { id: 3, event: 'Refused', code: '23503', reason: expect.any(String) },
      { id: 4, event: 'Refused', code: 'TOO_LARGE', reason: expect.any(String) },
      { id: 5, event: 'Published', channel: 'json' },
    ])
    expect(await stored('json')).toEqual(['a', 'c'])
  })

  test('is told to pgws, and leaves a plain client open', async () => {
    await using told = await connect(`${program.origin}/told/${await claims('ada')}`, { protocols: ['pgws'] })
    await using plain = await connect(`${program.origin}/told/${await claims('bob')}`)
    told.send('bad')
    expect(JSON.parse(await told.next())).toEqual({ event: 'MessageRefused', channel: 'told', code: 'PB001', reason: 'not bad' })
    plain.send('bad')
    plain.send('good')
    expect(JSON.parse(await plain.next()).payload).toBe('GOOD')
    expect(program.stderr()).toContain('message refused by the function')
  })
})

test('nothing of one call reaches another: role, path and claims of alternating users are their own, whatever fails', async () => {
  const users = await Promise.all(['u1', 'u2', 'u3'].map((sub) => claims(sub)))
  const clients = await Promise.all(users.map((given) => connect(`${program.origin}/mixed/${given}`)))
  for (let n = 0; n < 60; n++) for (const client of clients) client.send(['hi', 'escape', 'bad', 'other'][n % 4] ?? '')
  for (const client of clients) client.send('last')
  const last = (text: string): boolean => text.includes('"LAST"')
  for (const client of clients) for (let seen = 0; seen < 3; ) if (last(await client.next())) seen++
  const rows = await sql().unsafe(
    `select by, claims ->> 'sub' as sub, payload, count(*)::int from ${id}.said where channel = 'mixed' group by 1, 2, 3 order by 2, 3`,
  )
  expect(rows.map(({ by, sub, payload, count }) => [by, sub, payload, count])).toEqual(
    ['u1', 'u2', 'u3'].flatMap((sub) => [
      [role, sub, 'hi', 15],
      [role, sub, 'last', 1],
    ]),
  )
  for (const client of clients) await client.close()
})

test("a slow call holds up neither other senders nor readers, and a sender's order stands", async () => {
  await using slow = await connect(`${program.origin}/slow/${await claims('ada')}`)
  await using quick = await connect(`${program.origin}/quick/${await claims('bob')}`)
  slow.send('sleep 0.25')
  slow.send('after')
  await Bun.sleep(20)
  const began = performance.now()
  quick.send('quick')
  expect(JSON.parse(await quick.next()).payload).toBe('QUICK')
  expect(performance.now() - began).toBeLessThan(200)
  expect((await slow.take(2)).map((text) => JSON.parse(text).payload)).toEqual(['SLEEP 0.25', 'AFTER'])
})

test('a session that is killed in the middle loses nothing, and a message that comes again has the same id', async () => {
  const given = await claims('ada')
  await using client = await connect(`${program.origin}/killed/${given}`)
  client.send('sleep 0.2')
  for (let killed = 0; killed === 0; )
    killed = (await sql().unsafe(`select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'`)).length
  expect(JSON.parse(await client.next()).payload).toBe('SLEEP 0.2')
  for (let n = 0; n < 200; n++) {
    client.send(`m${n}`)
    if (n % 40 === 20)
      await sql().unsafe(
        `select pg_terminate_backend(pid) from pg_stat_activity where query like '%pgws.answers%' and pid <> pg_backend_pid()`,
      )
  }
  for (let text = ''; text !== 'M199'; ) text = JSON.parse(await client.next()).payload
  const rows = await sql().unsafe(
    `select payload, count(distinct message_id)::int as ids from ${id}.said where channel = 'killed' group by 1 order by min(n)`,
  )
  expect(rows.map((row) => row.payload)).toEqual(['sleep 0.2', ...Array.from({ length: 200 }, (_, n) => `m${n}`)])
  expect(rows.every((row) => row.ids === 1)).toBe(true)
})

test('a function that is missing, or returns something else, is a fault at start and in --check', async () => {
  await sql().unsafe(`create function ${id}.other(text, text) returns int language sql as 'select 1'`)
  for (const [name, fault] of [
    ['missing', 'a function that is not there'],
    ['other', 'it must be a function (text, text) returns text'],
  ] as const) {
    const env = { PGWS_DB_URI: database().uri, PGWS_MESSAGE_FUNCTION: `${id}.${name}` }
    await using wrong = launch(env)
    expect(await wrong.exited).toBe(1)
    expect(wrong.stderr()).toContain(fault)
    await using check = launch(env, ['--check'])
    expect(await check.exited).toBe(1)
    expect(check.stdout()).toContain('✗ message function: PGWS_MESSAGE_FUNCTION names ')
  }
})
