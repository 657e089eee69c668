/** Owns the statement that calls the function for each message of a batch, publishes what it returns, and says what became of each. */

/** Milliseconds after which no further call is made in a batch, so that those that were made are committed. */
const LONGEST = 100

/**
 * The most calls in a batch of a function that writes. Each one that does has a subtransaction number, and PostgreSQL keeps so many of
 * a transaction at hand: with more, all other sessions have to look them up.
 */
const MOST_WRITING = 64

/** The most characters of an exception's message. */
const REASON_LENGTH = 1000

/**
 * A function may leave another role or path behind, but those that it is called with, and what is done here, do not depend on it: what
 * stands right behind the call is written with its schema, and set for the session: a call may have done that, too. One call leaves no
 * claims to the next, and none to what is done at the commit.
 */
export const callStatement = (name: string): string =>
  `do ${quoted(`
declare
  own_role constant text not null := current_setting('role');
  caller constant text := nullif(current_setting('pgws.role'), '');
  path constant text not null := current_setting('search_path');
  time_limit constant interval not null := current_setting('statement_timeout');
  began constant timestamptz not null := statement_timestamp();
  finish constant timestamptz not null := clock_timestamp() + case
    when time_limit > interval '0' then least(time_limit / 2, interval '${LONGEST} ms') else interval '${LONGEST} ms' end;
  claims constant text[] not null := current_setting('pgws.claims');
  heads constant text[] not null := current_setting('pgws.heads');
  middles constant text[] not null := current_setting('pgws.middles');
  ends constant text[] not null := current_setting('pgws.ends');
  channels constant text[] not null := current_setting('pgws.channels');
  limits constant int[] not null := current_setting('pgws.limits');
  kept constant bool[] not null := current_setting('pgws.kept');
  frames constant int[] not null := current_setting('pgws.frames');
  payloads constant text[] not null := current_setting('pgws.payloads');
  stamps constant text[] not null := current_setting('pgws.stamps');
  ids constant text[] not null := current_setting('pgws.ids');
  keys constant text[] not null := current_setting('pgws.keys');
  f int;
  done int := 0;
  envelope text;
  is_large bool;
  is_late bool := false;
  caller_name name;
  notified text[];
  kept_ones int[];
  kept_texts text[];
  refused int[];
  codes text[];
  reasons text[];
begin
  if caller is not null then
    begin
      perform set_config('role', caller, true);
    exception when insufficient_privilege or invalid_parameter_value then
      perform set_config('pgws.answers', json_build_object('role', sqlerrm)::text, true);
      return;
    end;
  end if;
  caller_name := current_user;
  for i in 1 .. cardinality(payloads) loop
    f := frames[i];
    is_large := false;
    perform set_config('request.jwt.claims', claims[f], true), set_config('request.pgws.message_id', ids[i], true);
    begin
      envelope := ${name}(channels[f], payloads[i]);
      perform pg_catalog.set_config('search_path', path, false);
      if current_user <> caller_name then perform set_config('role', coalesce(caller, own_role), true); end if;
      if envelope is not null then
        envelope := heads[f] || stamps[i] || middles[f] || to_json(envelope)::text || ends[f];
        is_large := octet_length(envelope) >= limits[f];
        if is_large then raise exception 'too large'; end if;
      end if;
    exception when query_canceled or assert_failure or others then
      envelope := null;
      is_late := sqlstate = '57014' and time_limit > interval '0' and clock_timestamp() - began >= 0.9 * time_limit;
      if sqlstate ~ '^(40|53|57014|58)' and not is_late and sqlstate <> '53400' then raise; end if;
      refused := refused || i;
      codes := codes || case when is_large then 'TOO_LARGE' else sqlstate end;
      reasons := reasons || left(sqlerrm, ${REASON_LENGTH});
    end;
    done := i;
    if envelope is not null then
      if kept[f] then
        kept_ones := kept_ones || i;
        kept_texts := kept_texts || envelope;
      else
        notified := notified || envelope;
      end if;
    end if;
    exit when is_late or clock_timestamp() > finish;
    exit when done >= ${MOST_WRITING} and pg_current_xact_id_if_assigned() is not null;
  end loop;
  perform set_config('request.jwt.claims', '', false), set_config('request.pgws.message_id', '', false);
  perform set_config('role', own_role, false);
  if notified is not null then perform count(pg_notify(current_setting('pgws.channel'), text)) from unnest(notified) as text; end if;
  if kept_ones is not null then
    perform count(pgws.publish(channels[frames[m.i]], m.text, keys[m.i])) from unnest(kept_ones, kept_texts) as m(i, text);
  end if;
  perform set_config('pgws.answers', json_build_object('done', done, 'refused', refused, 'codes', codes, 'reasons', reasons)::text, true);
  if caller is not null then perform set_config('role', caller, true); end if;
end`)}`

const quoted = (text: string): string => `e'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
