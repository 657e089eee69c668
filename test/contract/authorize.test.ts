/** PGWS_AUTHORIZE_FUNCTION at every door, with roles and row-level security. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { connect, handshake } from '../support/client.ts'
import { converse } from '../support/commands.ts'
import { openStream } from '../support/event-source.ts'
import { type Program, start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

const schema = unique('rules').replaceAll('-', '_')
const [server, member] = [unique('server'), unique('member')]
let program: Program

const PLAIN = `create or replace function ${schema}.may(room text) returns text language plpgsql as $$ begin
  if room = 'raises' then raise exception 'it raises'; end if;
  return (select rights from ${schema}.members where channel = room and person = current_setting('request.jwt.claims')::json->>'sub');
end $$`

beforeAll(async () => {
  await sql().unsafe(`create role "${server}" login password '${database().password}'; create role "${member}"; grant "${member}" to "${server}";
    create schema ${schema}; grant usage on schema ${schema} to "${member}";
    create table ${schema}.members (person text, channel text, rights text);
    grant select on ${schema}.members to "${member}";
    alter table ${schema}.members enable row level security;
    create policy own on ${schema}.members to "${member}" using (person = current_setting('request.jwt.claims')::json->>'sub');
    ${PLAIN}`)
  const uri = new URL(database().uri)
  uri.username = server
  program = await start({
    PGWS_DB_URI: uri.href,
    PGWS_AUTHORIZE_FUNCTION: `${schema}.may`,
    PGWS_AUTHORIZE_INTERVAL: '60000',
    PGWS_JWT_ROLE_CLAIM: 'role',
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
  })
})
afterAll(() => program.stop())
beforeEach(async () => {
  await sql().unsafe(`truncate ${schema}.members`)
})

const allow = (channel: string, rights: string, person = 'ann') =>
  sql().unsafe(`insert into ${schema}.members values ('${person}', '${channel}', '${rights}')`)
const forbid = (channel: string) => sql().unsafe(`delete from ${schema}.members where channel = '${channel}'`)
const again = () => sql().unsafe(`select pg_notify('pgws_authorize', '')`)
const claims = (more: object = {}) => ({ mode: 'rw', sub: 'ann', role: member, ...more })
const path = async (channel: string, more: object = {}) => `/${channel}/${await token(claims(more))}`
const status = async (channel: string, more: object = {}) => (await handshake(program.port, await path(channel, more))).status
const post = async (where: string, body = 'hi') =>
  (await fetch(`http://127.0.0.1:${program.port}${where}`, { method: 'POST', body })).status

test('the function lets in, narrows, and never widens what the token allows', async () => {
  const [open, reading] = [unique('open'), unique('reading')]
  await allow(open, 'rw')
  await allow(reading, 'r')
  expect(await status(unique('other'))).toBe(403)
  expect(await status(open, { sub: 'bob' })).toBe(403)
  await using reader = await connect(program.origin + (await path(open, { mode: 'r' })))
  await using both = await connect(`${program.origin}/${await token(claims({ channels: [open, reading, 'none'] }))}`)
  reader.send('ignored')
  both.send('heard')
  expect(JSON.parse(await reader.next())).toMatchObject({ payload: 'heard', channel: open })
  // What it may only read it has not written to.
  expect(JSON.parse(await both.next())).toMatchObject({ channel: open })
  await sql()`select pg_notify('postgres-websockets-listener', ${JSON.stringify({ channel: reading, payload: 'x' })})`
  expect(JSON.parse(await both.next())).toEqual({ channel: reading, payload: 'x' })
  expect(reader.waiting).toBe(0)
})

test('a role that is missing or may not be taken is 403, and an error is 503 for its caller alone', async () => {
  expect(await status('x', { role: undefined })).toBe(403)
  for (const role of ['postgres', 'nobody', `${member}"; --`]) expect(await status('x', { role })).toBe(403)
  expect(await status('raises')).toBe(503)
  const open = unique('open')
  await allow(open, 'r')
  const [raises, opens] = await Promise.all([status('raises', { sub: 'x' }), status(open)])
  expect([raises, opens]).toEqual([503, 101])
})

test('event streams and POST ask as an upgrade does', async () => {
  const [reading, writing] = [unique('reading'), unique('writing')]
  await allow(reading, 'r')
  await allow(writing, 'w')
  const http = `http://127.0.0.1:${program.port}`
  const statusOf = async (where: string) => {
    await using stream = await openStream(http + where)
    return stream.status
  }
  expect(await statusOf(await path(reading))).toBe(200)
  expect(await statusOf(await path(writing))).toBe(403)
  expect(await post(await path(writing))).toBe(204)
  expect(await post(await path(reading))).toBe(403)
  expect(await post(await path('raises'))).toBe(503)
})

test('who loses access is told at once where pgws.authorize_again() is called, each as its door tells', async () => {
  const [a, b] = [unique('a'), unique('b')]
  await allow(a, 'rw')
  await allow(b, 'r')
  await using plain = await connect(`${program.origin}/${await token(claims({ channels: [a, b] }))}`)
  await using stays = await connect(program.origin + (await path(b)))
  await using narrowed = await connect(program.origin + (await path(a, { mode: 'r' })))
  await using stream = await openStream(`http://127.0.0.1:${program.port}${await path(a)}`)
  await using json = await converse(program, { claims: claims({ channels: [a, b] }), path: '/' })
  expect(json.connected).toMatchObject({ channels: [a, b] })
  await sql().unsafe(`update ${schema}.members set rights = 'r' where channel = '${a}'`)
  await again()
  expect(await plain.closed).toEqual({ code: 3003, reason: 'Access withdrawn: connect again' })
  expect(await json.ask({ id: 1, command: 'publish', channel: a, text: 'x' })).toMatchObject([
    { id: 1, code: 'MODE_NOT_ALLOWED' },
  ])
  await forbid(a)
  await again()
  expect(await json.next()).toEqual({ event: 'Unsubscribed', channel: a, code: 'ACCESS_WITHDRAWN' })
  expect((await narrowed.closed).code).toBe(3003)
  expect(await stream.next()).toMatchObject({ event: 'AccessWithdrawn', data: '{}' })
  expect(await stream.ended).toBe('whole')
  expect(await json.ask({ id: 2, command: 'publish', channel: a, text: 'x' })).toMatchObject([
    { id: 2, code: 'CHANNEL_NOT_ALLOWED' },
  ])
  await sql()`select pg_notify('postgres-websockets-listener', ${JSON.stringify({ channel: a, payload: 'secret' })})`
  await sql()`select pg_notify('postgres-websockets-listener', ${JSON.stringify({ channel: b, payload: 'x' })})`
  expect(await json.next()).toMatchObject({ channel: b })
  expect(await stays.next()).toContain('"x"')
  await allow(a, 'rw')
  await again()
  // The answer of a moment ago is remembered until the signal is there.
  await until(async () => (await json.ask({ id: 3, command: 'subscribe', channel: a }))[0]?.event === 'Subscribed')
})

test('subscribe and publish ask, answers keep their order, and a new token is decided on', async () => {
  const [a, b, c] = [unique('a'), unique('b'), unique('c')]
  await allow(a, 'rw')
  await allow(b, 'w')
  await allow(c, 'rw', 'bob')
  await using json = await converse(program, { claims: claims() })
  const publish = (id: number, channel: string) => ({ id, command: 'publish', channel, text: `${id}` })
  const answers = await json.ask(...[a, b, c, 'raises', a].map((channel, index) => publish(index, channel)))
  expect(answers.map(({ id, event, code }) => `${id} ${code ?? event}`)).toEqual([
    '0 Published',
    '1 Published',
    '2 CHANNEL_NOT_ALLOWED',
    '3 AUTHORITY_UNAVAILABLE',
    '4 Published',
  ])
  const subscribed = await json.ask(...[a, b, c].map((channel, id) => ({ id, command: 'subscribe', channel })))
  expect(subscribed.map(({ id, event, code }) => `${id} ${code ?? event}`).sort()).toEqual([
    '0 Subscribed',
    '1 MODE_NOT_ALLOWED',
    '2 CHANNEL_NOT_ALLOWED',
  ])
  json.say({ id: 9, command: 'token', token: await token(claims({ sub: 'bob' })) })
  expect(await json.take(2)).toMatchObject([
    { id: 9, event: 'TokenAccepted' },
    { event: 'Unsubscribed', channel: a, code: 'ACCESS_WITHDRAWN' },
  ])
  expect(await json.ask(publish(10, a), publish(11, c))).toMatchObject([{ code: 'CHANNEL_NOT_ALLOWED' }, { event: 'Published' }])
})

test('a function that is replaced, dropped or raises, a role that is gone and killed sessions let nobody in, and keep who is', async () => {
  const open = unique('open')
  const gone = unique('gone')
  await allow(open, 'rw')
  await allow(open, 'rw', 'kept')
  await sql().unsafe(`create role "${gone}"; grant "${gone}" to "${server}"; grant "${member}" to "${gone}"`)
  await using stays = await connect(program.origin + (await path(open, { sub: 'kept' })))
  await using leaves = await connect(program.origin + (await path(open, { role: gone })))
  let isOver = false
  const wrong: number[] = []
  let tried = 0
  const storm = async (sub: string) => {
    while (!isOver) {
      const found = await status(open, { sub, jti: `${tried++}` })
      if (found !== 403 && found !== 503) wrong.push(found)
    }
  }
  const storms = ['eve', 'mallory'].map(storm)
  const broken = [
    `drop function ${schema}.may(text)`,
    `create function ${schema}.may(room text) returns text language sql as $$ select 1/0 || 'rw' $$`,
    `drop function ${schema}.may(text)`,
    PLAIN,
    `select pg_terminate_backend(pid) from pg_stat_activity where usename = '${server}' and query not like 'listen%'`,
  ]
  for (const statement of broken) {
    await sql().unsafe(statement)
    await again()
    const before = tried
    await until(() => tried > before + 20)
  }
  await sql().unsafe(`drop role "${gone}"`)
  await again()
  expect((await leaves.closed).code).toBe(3003)
  isOver = true
  await Promise.all(storms)
  expect(wrong).toEqual([])
  stays.send('still here')
  expect(JSON.parse(await stays.next())).toMatchObject({ payload: 'still here' })
  await until(async () => (await status(open)) === 101)
})

test.each([
  ['missing', 'a function that is not there: create function'],
  ['members_of', 'which is (integer) returns text'],
])('a start and --check say that %s is no such function', async (name, told) => {
  const { launch } = await import('../support/program.ts')
  await sql().unsafe(`create or replace function ${schema}.members_of(integer) returns text language sql as 'select null::text'`)
  const env = { PGWS_DB_URI: database().uri, PGWS_AUTHORIZE_FUNCTION: `${schema}.${name}` }
  const started = launch(env)
  expect(await started.exited).toBe(1)
  expect(started.stderr()).toContain(told)
  const checked = launch(env, ['--check'])
  expect(await checked.exited).toBe(1)
  expect(checked.stdout()).toMatch(new RegExp(`✗.*${name}`))
})

test('a client is asked about again within the interval', async () => {
  await using short = await start({
    PGWS_DB_URI: database().uri,
    PGWS_AUTHORIZE_FUNCTION: `${schema}.may`,
    PGWS_AUTHORIZE_INTERVAL: '200',
  })
  const open = unique('open')
  await allow(open, 'rw')
  await using client = await connect(short.origin + (await path(open)))
  await forbid(open)
  expect((await client.closed).code).toBe(3003)
})
