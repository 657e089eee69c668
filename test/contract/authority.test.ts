/** The database as an authority: one function is asked for many clients, and nothing of one call is there in another. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import type { Decision } from '../../lib/access/grant.ts'
import { parseConninfo } from '../../lib/database/conninfo.ts'
import { createDatabase } from '../../lib/database/database.ts'
import { createMetrics, type Metrics } from '../../lib/metrics.ts'
import { createAuthority, type DatabaseAuthority } from '../../lib/rules/authority.ts'
import { database, sql, unique } from '../support/setup.ts'
import { until } from '../support/until.ts'

const schema = unique('authority')
const [server, alice, bob] = [unique('server'), unique('alice'), unique('bob')]
const open: DatabaseAuthority[] = []
const lines: Readonly<Record<string, unknown>>[] = []

beforeAll(async () => {
  await sql().unsafe(`
    create role "${server}" login password '${database().password}'; create role "${alice}"; create role "${bob}";
    grant "${alice}", "${bob}" to "${server}";
    create schema "${schema}"; grant usage on schema "${schema}" to public;
    create table "${schema}".members (name text, channel text);
    alter table "${schema}".members enable row level security;
    create policy own on "${schema}".members using (name = current_user);
    grant select, insert on "${schema}".members to public;
    insert into "${schema}".members values ('${alice}', 'a'), ('${bob}', 'b');`)
})
afterAll(() => {
  for (const authority of open) authority.stop()
})

/** An authority over a function whose body is given. */
async function authority(
  body: string,
  language = 'plpgsql',
  now?: () => number,
): Promise<DatabaseAuthority & { name: string; metrics: Metrics }> {
  const name = unique('may').replaceAll('-', '_')
  await sql().unsafe(`create function "${schema}".${name}(channel text) returns text language ${language} as $_$ ${body} $_$`)
  const uri = new URL(database().uri)
  uri.username = server
  const conninfo = parseConninfo(uri.href, {}, readFileSync, 'nobody')
  const log = { error: (message: string, fields: unknown) => lines.push({ message, ...(fields as object) }) }
  const metrics = createMetrics()
  const made = createAuthority({
    database: createDatabase(() => conninfo, 1000),
    name: `"${schema}"."${name}"`,
    log: { ...log, warning: log.error, info: log.error, debug: log.error },
    metrics,
    ...(now ? { now } : {}),
  })
  open.push(made)
  return { ...made, metrics, name: `"${schema}".${name}` }
}

const who = (sub: string, role?: string) => ({ claims: JSON.stringify({ sub, role }), role })

const OWN_ROWS = `begin return (select 'rw' from members where members.channel = $1 and name = current_user
  and current_setting('request.jwt.claims')::json->>'role' = current_user); end`.replace(
  'members where',
  `"${schema}".members where`,
)

test('each question is asked under its role and claims, in whatever order they come', async () => {
  const { decide } = await authority(OWN_ROWS)
  const asked = Array.from({ length: 300 }, (_, index) => ({
    ...who(`${index}`, index % 2 ? alice : bob),
    mine: index % 2 ? 'a' : 'b',
  }))
  const decisions = await Promise.all(asked.map((one) => decide(one, ['a', 'b'])))
  expect(decisions).toEqual(asked.map(({ mine }) => (mine === 'a' ? ['rw', 'no'] : ['no', 'rw'])))
})

test('a call leaves no role, claims or path to the next, whether it fails or not; what it wrote stands where it did not', async () => {
  const table = unique('calls')
  await sql().unsafe(`create table "${table}" (sub text); grant insert on "${table}" to public`)
  const { decide } =
    await authority(`declare mine text := current_user; sub text := current_setting('request.jwt.claims')::json->>'sub';
    begin
      if current_setting('search_path') like '%hostile%' then return 'leaked'; end if;
      insert into public."${table}" values (sub);
      perform set_config('request.jwt.claims', '{"sub":"thief"}', false), set_config('search_path', 'hostile', false);
      if sub like '%fails' then raise exception 'it fails'; end if;
      perform set_config('role', 'none', false);
      return case when mine like 'alice%' then 'r' when mine like 'bob%' then 'w' when mine like 'server%' then 'rw' end;
    end`)
  const roles = [alice, bob, undefined]
  const asked = Array.from({ length: 90 }, (_, index) => who(`${index}${index % 4 ? '' : ' fails'}`, roles[index % 3]))
  const expected = asked.map(
    (_, index): Decision => (index % 4 ? ((['r', 'w', 'rw'] as const)[index % 3] ?? 'no') : 'AUTHORITY_UNAVAILABLE'),
  )
  for (let round = 0; round < 3; round++)
    expect((await Promise.all(asked.map((one) => decide(one, ['x'], true)))).flat()).toEqual(expected)
  const written = await sql().unsafe(`select sub from "${table}" group by sub having count(*) = 3`)
  const answered = asked.filter((_, index) => index % 4).map(({ claims }) => JSON.parse(claims).sub)
  expect(written.map(({ sub }) => sub).sort()).toEqual(answered.sort())
})

test('who may execute a function within the function is looked at for each role', async () => {
  const helper = unique('helper').replaceAll('-', '_')
  await sql().unsafe(`create function "${schema}".${helper}() returns text language plpgsql as $$ begin return 'rw'; end $$;
    revoke execute on function "${schema}".${helper}() from public; grant execute on function "${schema}".${helper}() to "${alice}"`)
  const { decide } = await authority(`begin return "${schema}".${helper}(); end`)
  const decisions = await Promise.all([alice, bob, alice, bob].map((role, index) => decide(who(`${index}`, role), ['x'])))
  expect(decisions.flat()).toEqual(['rw', 'AUTHORITY_UNAVAILABLE', 'rw', 'AUTHORITY_UNAVAILABLE'])
})

test('a role that is not there, or that the server may not take, is not allowed, and concerns nobody else', async () => {
  const { decide } = await authority(`begin return 'r'; end`)
  const stranger = unique('stranger')
  await sql().unsafe(`create role "${stranger}"`)
  const roles = [alice, 'nobody', stranger, 'postgres', 'x"; drop table members; --', undefined]
  const decisions = await Promise.all(roles.map((role, index) => decide(who(`${index}`, role), ['x'])))
  expect(decisions.flat()).toEqual(['r', ...new Array(4).fill('ROLE_NOT_ALLOWED'), 'r'])
})

test('any other answer is no, and an error in the log', async () => {
  const { decide } = await authority('begin return channel; end')
  const channels = ['r', 'w', 'rw', 'wr', 'R', ' r', '', 'true', 'x'.repeat(1000), 'r\0', '"', "'", '\\', '😀']
  expect(await decide(who('1'), channels)).toEqual(['r', 'w', 'rw', ...new Array(11).fill('no')])
  expect(lines).toContainEqual(
    expect.objectContaining({ channel: 'wr', answer: 'wr', reason: 'the answer is none of r, w, rw and null' }),
  )
  const none = await authority('begin return null; end')
  expect(await none.decide(who('1'), ['x'])).toEqual(['no'])
})

test('what no exception block catches concerns its caller alone', async () => {
  const { decide } = await authority(`begin
    if channel = 'canceled' then perform pg_cancel_backend(pg_backend_pid()); perform pg_sleep(5); end if;
    if channel = 'assert' then assert false; end if;
    return 'r'; end`)
  const channels = Array.from({ length: 40 }, (_, index) => (index === 17 ? 'canceled' : index === 30 ? 'assert' : `c${index}`))
  expect(await decide(who('1'), channels)).toEqual(
    channels.map((name) => (name.startsWith('c') && name !== 'canceled' ? 'r' : 'AUTHORITY_UNAVAILABLE')),
  )
})

test('a call without end keeps the others of its query waiting for three time limits, and not for ten', async () => {
  const calls = unique('calls').replaceAll('-', '_')
  await sql().unsafe(`create sequence "${schema}".${calls}; grant usage on sequence "${schema}".${calls} to public`)
  const { decide } = await authority(`begin
    if channel = 'endless' then perform nextval('"${schema}".${calls}'), pg_cancel_backend(pg_backend_pid()), pg_sleep(5); end if;
    return 'r'; end`)
  const channels = Array.from({ length: 1000 }, (_, index) => (index === 700 ? 'endless' : `c${index}`))
  expect((await decide(who('1'), channels)).filter((decision) => decision !== 'r')).toEqual(['AUTHORITY_UNAVAILABLE'])
  expect(Number((await sql().unsafe(`select last_value from "${schema}".${calls}`))[0]?.last_value)).toBe(3)
})

test('a function that kills its session lets nobody in, and the next ones are answered', async () => {
  const { decide } = await authority(`begin
    if channel = 'kill' then perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(5); end if;
    return case current_user when '${alice}' then 'r' end; end`)
  const decisions = await Promise.all([
    decide(who('1', alice), ['x']),
    decide(who('2', bob), ['kill']),
    decide(who('3', bob), ['x']),
  ])
  expect(decisions.flat().slice(0, 2)).toEqual(['r', 'AUTHORITY_UNAVAILABLE'])
  expect(decisions.flat()[2]).not.toBe('r')
  expect(await decide(who('3', bob), ['x'])).toEqual(['no'])
  expect(await decide(who('4', alice), ['x'])).toEqual(['r'])
})

test('a decision is remembered for a second, one under way is shared, and both are forgotten when they are to be', async () => {
  let time = 0
  const calls = unique('calls').replaceAll('-', '_')
  await sql().unsafe(`create sequence "${schema}".${calls}; grant usage on sequence "${schema}".${calls} to public`)
  const { decide, forget, name } = await authority(
    `begin perform nextval('"${schema}".${calls}'), pg_sleep(0.3); return 'r'; end`,
    'plpgsql',
    () => time,
  )
  const called = async () => Number((await sql().unsafe(`select last_value, is_called from "${schema}".${calls}`))[0]?.last_value)
  await Promise.all(Array.from({ length: 50 }, () => decide(who('1'), ['x'])))
  expect(await called()).toBe(1)
  time = 999
  expect(decide(who('1'), ['x'])).toEqual(['r'])
  await decide(who('1'), ['x'], true)
  expect(await called()).toBe(2)
  time = 2000
  await decide(who('1'), ['x'])
  expect(await called()).toBe(3)
  forget()
  const again = decide(who('1'), ['x'])
  expect(again).toBeInstanceOf(Promise)
  await until(async () => (await called()) === 4)
  // It is asked again behind what is said from now on.
  await sql().unsafe(`create or replace function ${name}(channel text) returns text language sql as $$ select null::text $$`)
  forget()
  expect(await again).toEqual(['no'])
})

test('what was remembered is forgotten, too, for whoever still waits for another channel', async () => {
  const { decide, forget, name } = await authority(`begin return 'r'; end`)
  expect(await decide(who('1'), ['known'])).toEqual(['r'])
  await sql().unsafe(`create or replace function ${name}(channel text) returns text language sql as $$ select null::text $$`)
  const both = decide(who('1'), ['known', 'other'])
  forget()
  expect(await both).toEqual(['no', 'no'])
})

test('a query has the time limit of the role, and never none', async () => {
  for (const [limit, expected] of [
    ['0', '3s'],
    ['500ms', '500ms'],
    ['1min', '3s'],
  ] as const) {
    await sql().unsafe(`alter role "${server}" set statement_timeout = '${limit}'`)
    const { decide } = await authority("begin return 'limit ' || current_setting('statement_timeout'); end")
    expect(await decide(who(limit), ['x'])).toEqual(['no'])
    expect(lines.at(-1)).toMatchObject({ answer: `limit ${expected}` })
  }
  await sql().unsafe(`alter role "${server}" reset statement_timeout`)
})

test('five thousand questions at once are a few queries', async () => {
  const { decide, metrics } = await authority(`begin return 'r'; end`)
  const began = performance.now()
  const decisions = await Promise.all(Array.from({ length: 5000 }, (_, index) => decide(who(`${index}`, alice), ['x'])))
  expect(new Set(decisions.flat())).toEqual(new Set(['r']))
  expect(performance.now() - began).toBeLessThan(5000)
  expect(Number(/^pgws_authorize_queries_total (\d+)$/m.exec(metrics.render())?.[1])).toBeLessThanOrEqual(50)
})
