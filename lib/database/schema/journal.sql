-- The journal of postgres-websockets, for PostgreSQL 13 or later. It can be run again at any time: what is there already is kept.
--
-- A publisher only inserts. One server at a time, the sequencer, looks for transactions that have become visible since its last look,
-- and gives them consecutive positions (the way of PgQ). Nothing waits for a publisher, and a publisher waits for nothing.
--
--     messages       what was published, by transaction and by number in it
--     transactions   where each transaction stands in the journal: the position of its first message
--     batches        one row a look that found something: how far the journal reaches, and what that look could see
--
-- Rows are only inserted. Each of these tables is four tables, of which one is filled at a time and one is emptied by TRUNCATE.
--
-- The transaction that begins here is committed behind connections.sql.
begin isolation level read committed read write;
set local client_min_messages = warning;

do $$
declare
  known constant int := 2;
  installed int;
begin
  -- Two installations at once: the second one waits, and then finds everything there.
  perform pg_advisory_xact_lock(1885828979, 1);
  if current_setting('server_version_num')::int < 130000 then
    raise exception 'the journal needs PostgreSQL 13 or later; this is %', current_setting('server_version');
  end if;
  if to_regnamespace('pgws') is null then
    create schema pgws;
  end if;
  if to_regclass('pgws.settings') is not null then
    execute 'select version from pgws.settings' into installed;
    if installed > known then
      raise exception 'the schema pgws has version %, and this program knows %: install with the newer program', installed, known;
    end if;
  end if;
end
$$;

create table if not exists pgws.settings (
  is_only boolean primary key default true check (is_only),
  version int not null,
  retention interval not null default '1 day',
  -- For how long one of four tables is filled: half the retention. The other three hold what is younger, and what goes.
  slot_seconds double precision not null default 43200,
  -- From this position on, everything is there.
  kept bigint not null default 1
);

insert into pgws.settings (version) values (2) on conflict (is_only) do update set version = excluded.version;

-- Where history may have forked: another cluster (a dump that was restored), or another timeline (a replica that was promoted).
create table if not exists pgws.epochs (
  number int primary key,
  -- The system identifier.
  cluster bigint not null,
  timeline int not null,
  -- The first position of this epoch.
  began bigint not null,
  unique (cluster, timeline)
);

create table if not exists pgws.messages (
  -- Rows that a dump brought from another cluster carry that cluster's transaction ids, which mean nothing here.
  cluster bigint not null,
  xid xid8 not null,
  published_at timestamptz not null,
  -- From 1 in each transaction, without gaps. A position is that of the transaction plus this, less one.
  number int not null,
  -- All messages of a transaction lie in one of the four tables.
  slot smallint not null,
  has_key boolean not null,
  channel text collate "C" not null,
  payload text not null
) partition by list (slot);

create table if not exists pgws.transactions (
  first bigint not null,
  xid xid8 not null,
  count int not null,
  -- That of its messages, so that both are emptied together.
  slot smallint not null
) partition by list (slot);

create table if not exists pgws.batches (
  number bigint not null,
  -- The last position so far.
  last bigint not null,
  -- Every transaction that this snapshot sees has its position, and no other has.
  snapshot pg_snapshot not null,
  taken_at timestamptz not null,
  -- That in which the batch before this one was made: two that follow the same batch meet in one unique index.
  slot smallint not null,
  next_slot smallint not null
) partition by list (slot);

-- A key counts for an hour, whatever the retention: these four tables are filled for half an hour each.
create table if not exists pgws.keys (
  hash bigint not null,
  cluster bigint not null,
  xid xid8 not null,
  published_at timestamptz not null,
  number int not null,
  slot smallint not null,
  message_slot smallint not null,
  channel text collate "C" not null,
  key text collate "C" not null
) partition by list (slot);

-- How far each server has come that publishes for its clients. Filled and emptied as the keys are: a batch that is sent again within the
-- hour is published once.
create table if not exists pgws.sent (
  sender uuid not null,
  last bigint not null,
  slot smallint not null
) partition by list (slot);

do $$
begin
  for slot in 0..3 loop
    execute replace($sql$
      create table if not exists pgws.messages_N partition of pgws.messages for values in (N);
      create unique index if not exists messages_N_order on pgws.messages_N (cluster, xid, number);
      create index if not exists messages_N_channel on pgws.messages_N (channel, xid, number);

      create table if not exists pgws.transactions_N partition of pgws.transactions for values in (N);
      create index if not exists transactions_N_order on pgws.transactions_N (first);
      create index if not exists transactions_N_xid on pgws.transactions_N (xid);

      create table if not exists pgws.batches_N partition of pgws.batches for values in (N);
      create unique index if not exists batches_N_order on pgws.batches_N (number);
      create index if not exists batches_N_last on pgws.batches_N (last, number);

      create table if not exists pgws.keys_N partition of pgws.keys for values in (N);
      create index if not exists keys_N_hash on pgws.keys_N (hash);
      create index if not exists keys_N_xid on pgws.keys_N (xid);

      create table if not exists pgws.sent_N partition of pgws.sent for values in (N);
      create index if not exists sent_N_last on pgws.sent_N (sender, last);
    $sql$, 'N', slot::text);
  end loop;
end
$$;

create or replace function pgws.version() returns int
language sql stable security definer set search_path = pg_catalog, pg_temp
as 'select version from pgws.settings';

-- The system identifier. It is another in another cluster only, to which no session and no plan goes over: so it is immutable, and a
-- plan holds it as a constant.
create or replace function pgws.cluster() returns bigint
language sql immutable set search_path = pg_catalog, pg_temp
as 'select system_identifier from pg_control_system()';

-- Which of four tables is filled now, each for some seconds in turn. Asked only by functions that have fixed their search_path.
create or replace function pgws.slot(seconds double precision) returns smallint
language plpgsql volatile
as $$
begin
  return (floor(extract(epoch from clock_timestamp()) / seconds)::bigint % 4)::smallint;
end
$$;

-- Publishes a text to every reader of a channel, if and when this transaction commits.
create or replace function pgws.publish(channel text, payload text, key text default null) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  -- Where this transaction stands: 'XID SLOT NUMBER' of its last message. It comes and goes with savepoints, as the messages do.
  mark constant text[] := string_to_array(current_setting('pgws.mark', true), ' ');
  earlier constant xid8 := pg_current_xact_id_if_assigned();
  own xid8;
  place smallint;
  count int;
  seconds double precision;
  hash_of_key bigint;
begin
  if publish.channel is null or publish.payload is null then
    raise exception 'pgws.publish: the % is null', case when publish.channel is null then 'channel' else 'payload' end
      using errcode = 'null_value_not_allowed';
  elsif octet_length(publish.channel) not between 1 and 1024 then
    raise exception 'pgws.publish: a channel has 1 to 1024 bytes; this one has %', octet_length(publish.channel)
      using errcode = 'invalid_parameter_value';
  elsif octet_length(publish.payload) > 1048576 then
    raise exception 'pgws.publish: a payload has at most 1048576 bytes; this one has %', octet_length(publish.payload)
      using errcode = 'program_limit_exceeded';
  elsif octet_length(publish.key) not between 1 and 1024 then
    raise exception 'pgws.publish: a key has 1 to 1024 bytes; this one has %', octet_length(publish.key)
      using errcode = 'invalid_parameter_value';
  end if;

  if publish.key is not null then
    hash_of_key := hashtextextended(publish.channel || ' ' || publish.key, 0);
    -- One that is still under way elsewhere is not waited for: of two, the sequencer takes the first that commits.
    if exists (
      select from pgws.keys k
      where k.hash = hash_of_key and k.channel = publish.channel and k.key = publish.key
        and k.published_at > clock_timestamp() - interval '1 hour'
    ) then
      return;
    end if;
  end if;

  if mark[1] = earlier::text then
    own := earlier;
    place := mark[2];
    count := mark[3];
  else
    -- Ahead of the bell: a sequencer that falls asleep meanwhile stays half awake for every transaction that has an id.
    own := pg_current_xact_id();
    if earlier is not null then
      -- RESET ALL takes the mark away.
      select m.slot, m.number into place, count
      from pgws.messages m
      where m.cluster = pgws.cluster() and m.xid = own
      order by m.number desc limit 1;
    end if;
    if place is null then
      place := pgws.slot(s.slot_seconds) from pgws.settings s;
      count := 0;
    end if;
    -- The sequencer holds this lock while it looks of its own accord. A transaction that has notified cannot be prepared: where
    -- there are prepared transactions, nobody rings, and the sequencer never sleeps.
    if pg_try_advisory_lock_shared(1885828979, 3) then
      perform pg_advisory_unlock_shared(1885828979, 3);
      if current_setting('max_prepared_transactions') = '0' then
        perform pg_notify('pgws_published', '');
      end if;
    end if;
  end if;

  count := count + 1;
  insert into pgws.messages (cluster, xid, published_at, number, slot, has_key, channel, payload)
  values (pgws.cluster(), own, clock_timestamp(), count, place, publish.key is not null, publish.channel, publish.payload);
  if publish.key is not null then
    insert into pgws.keys (hash, cluster, xid, published_at, number, slot, message_slot, channel, key)
    values (hash_of_key, pgws.cluster(), own, clock_timestamp(), count, pgws.slot(1800), place, publish.channel, publish.key);
  end if;
  perform set_config('pgws.mark', concat_ws(' ', own, place, count), true);
end
$$;

-- Publishes what clients sent to a server, in its order, less what it published before. The server gives its messages consecutive numbers,
-- `first` is that of the first one here, and it sends none while an earlier one may have to be sent again: so the highest number that
-- is published says of each message whether it is. After a lost answer two sessions may send the same. The second one waits for
-- the end of the first one's transaction, and then sees what that published.
create or replace function pgws.publish_batch(sender uuid, first bigint, channels text[], payloads text[], keys text[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
declare
  size constant int := cardinality(channels);
  highest bigint;
  next int;
  beyond int;
  mark text[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'pgws.publish_batch: must see what was committed while it waited: run it in read committed';
  end if;
  perform pg_advisory_xact_lock(1885828980, uuid_hash(publish_batch.sender));
  highest := (select s.last from pgws.sent s where s.sender = publish_batch.sender order by s.last desc limit 1);
  if highest >= publish_batch.first + size - 1 then
    return;
  end if;
  next := greatest(highest - publish_batch.first + 1, 0) + 1;
  while next <= size loop
    perform pgws.publish(channels[next], payloads[next], keys[next]);
    next := next + 1;
    mark := string_to_array(current_setting('pgws.mark', true), ' ');
    -- Those that follow the message of this transaction have no key, and go at once.
    if mark[1] = pg_current_xact_id_if_assigned()::text then
      beyond := coalesce(
        (select min(k.index) from unnest(keys) with ordinality as k(key, index) where k.key is not null and k.index >= next), size + 1
      );
      -- Refuses what is wrong with the first that does not fit.
      perform pgws.publish(m.channel, m.payload)
      from unnest(channels[next:beyond - 1], payloads[next:beyond - 1]) as m(channel, payload)
      where (octet_length(m.channel) between 1 and 1024 and octet_length(m.payload) <= 1048576) is not true
      limit 1;
      insert into pgws.messages (cluster, xid, published_at, number, slot, has_key, channel, payload)
      select pgws.cluster(), mark[1]::xid8, clock_timestamp(), mark[3]::int + m.index, mark[2]::smallint, false, m.channel, m.payload
      from unnest(channels[next:beyond - 1], payloads[next:beyond - 1]) with ordinality as m(channel, payload, index);
      perform set_config('pgws.mark', concat_ws(' ', mark[1], mark[2], mark[3]::int + beyond - next), true);
      next := beyond;
    end if;
  end loop;
  insert into pgws.sent (sender, last, slot) values (publish_batch.sender, publish_batch.first + size - 1, pgws.slot(1800));
end
$$;

-- A row trigger that publishes each change on the channel that is its argument. Whoever writes to the table needs no right for that.
-- Whoever may make such a trigger runs the json casts of his own types as this function's owner: grant it to nobody you do not trust.
create or replace function pgws.publish_change() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  head constant text := format('{"op":%s,"table":%s', to_json(tg_op), to_json(tg_table_schema || '.' || tg_table_name));
  change text;
  key_columns text;
  key jsonb;
begin
  begin
    change := concat(
      head,
      case when tg_op <> 'DELETE' then ',"new":' || to_jsonb(new)::text end,
      case when tg_op <> 'INSERT' then ',"old":' || to_jsonb(old)::text end,
      '}'
    );
  exception when others then
    -- Too large to be written as JSON at all, for one.
    change := null;
  end;
  if change is null or octet_length(change) > 1048576 then
    select string_agg(format('%L, ($1).%I', a.attname, a.attname), ', ' order by a.attnum) into key_columns
    from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
    where i.indrelid = tg_relid and i.indisprimary;
    change := head;
    if tg_op <> 'DELETE' then
      execute format('select jsonb_build_object(%s)', key_columns) into key using new;
      change := change || ',"new":' || key::text;
    end if;
    if tg_op <> 'INSERT' then
      execute format('select jsonb_build_object(%s)', key_columns) into key using old;
      change := change || ',"old":' || key::text;
    end if;
    change := change || ',"truncated":true}';
  end if;
  perform pgws.publish(tg_argv[0], change);
  return null;
end
$$;

create or replace function pgws.timeline() returns int
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case
    when pg_is_in_recovery() then (select timeline_id from pg_control_checkpoint())
    else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
  end
$$;

-- A position as readers know it, EPOCH-NUMBER: the epoch is that in which the message was given its number.
create or replace function pgws.position_text(number bigint) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  epoch text := (
    select to_hex(e.cluster) || '.' || e.timeline
    from pgws.epochs e
    where e.cluster = pgws.cluster()
    order by e.began <= position_text.number desc, abs(e.began - position_text.number), e.number desc limit 1
  );
begin
  return coalesce(epoch, to_hex(pgws.cluster()) || '.' || pgws.timeline()) || '-' || position_text.number;
end
$$;

-- Where the journal stands in the snapshot of the statement that asks: it is stable, for a snapshot of its own could be a later one.
create or replace function pgws.position() returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return pgws.position_text(coalesce((select b.last from pgws.batches b order by b.number desc limit 1), 0));
end
$$;

-- The number of a position, or null where it is lost: of another cluster, beyond the newest, behind a fork, or older than what is kept.
create or replace function pgws.position_number(text) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  parts constant text[] := regexp_match($1, '^([0-9a-f]{1,16})\.([0-9]{1,9})-([0-9]{1,16})$');
  found_number constant bigint := parts[3];
  epoch pgws.epochs;
begin
  if parts is null then
    raise exception 'pgws: % is no position', quote_literal(left($1, 100)) using errcode = 'PT400';
  end if;
  select e.* into epoch from pgws.epochs e
  where to_hex(e.cluster) = parts[1] and e.timeline = parts[2]::int and e.cluster = pgws.cluster();
  if epoch.number is null and (
    parts[1] <> to_hex(pgws.cluster()) or exists (select from pgws.epochs e where e.cluster = pgws.cluster())
  ) then
    return null;
  elsif exists (select from pgws.epochs e where e.number > epoch.number and e.began <= found_number) then
    return null;
  elsif found_number > coalesce((select b.last from pgws.batches b order by b.number desc limit 1), 0) then
    return null;
  elsif found_number < (select s.kept - 1 from pgws.settings s) then
    return null;
  end if;
  return found_number;
end
$$;

-- Up to so many messages of a channel behind a position, or all of them where `wanted` is null, by position. They are
--   the rest of the transaction in which that position lies,
--   of those that its batch or a later one found, the ones with a greater transaction id, and
--   the ones that were under way beside it.
-- By transaction id the channel's messages lie nearly in their order: so few rows are read beyond those that are wanted. `cluster + 0`
-- keeps the planner, who knows nothing of a table that was just filled, from the index of all channels' order.
create or replace function pgws.channel_after(channel text, after bigint, wanted int)
returns table ("position" bigint, payload text, published_at timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
  inside pgws.transactions;
  earlier pg_snapshot;
  present pg_snapshot;
  late xid8[];
  until bigint;
  beyond xid8 := '9223372036854775807';
begin
  select t.* into inside from pgws.transactions t where t.first <= channel_after.after order by t.first desc limit 1;
  inside.xid := coalesce(inside.xid, '0');
  earlier := coalesce(
    (select b.snapshot from pgws.batches b where b.last <= channel_after.after order by b.last desc, b.number desc limit 1), '1:1:'
  );
  present := coalesce(
    (select b.snapshot from pgws.batches b where b.last >= channel_after.after order by b.last, b.number limit 1), earlier
  );
  late := array(
    select x.xid
    from (select pg_snapshot_xip(earlier) union select pg_snapshot_xip(present)) as x(xid)
    where x.xid < inside.xid or x.xid < pg_snapshot_xmax(earlier) and x.xid > inside.xid
  );
  if wanted is not null then
    -- Of twice as many by transaction id, those of long transactions stand far behind.
    select s.position into until
    from (
      select t.first + m.number - 1 as position
      from pgws.messages m join pgws.transactions t on t.slot = m.slot and t.xid = m.xid and t.first > channel_after.after
      where m.channel = channel_after.channel and m.cluster + 0 = pgws.cluster()
        and m.xid >= pg_snapshot_xmax(earlier) and m.xid > inside.xid
      order by m.xid, m.number
      limit 2 * wanted
    ) s
    order by s.position offset wanted - 1 limit 1;
  end if;
  if until is not null then
    beyond := (select pg_snapshot_xmax(b.snapshot) from pgws.batches b where b.last >= until order by b.last, b.number limit 1);
  end if;
  return query
    select s.*
    from (
      (
        select inside.first + m.number - 1 as position, m.payload, m.published_at
        from pgws.messages m
        where m.slot = inside.slot and m.cluster + 0 = pgws.cluster() and m.channel = channel_after.channel
          and m.xid = inside.xid and m.number > channel_after.after - inside.first + 1
        order by m.number
        limit wanted
      )
      union all
      select t.first + m.number - 1, m.payload, m.published_at
      from pgws.messages m join pgws.transactions t on t.slot = m.slot and t.xid = m.xid and t.first > channel_after.after
      where m.channel = channel_after.channel and m.cluster + 0 = pgws.cluster()
        and m.xid >= pg_snapshot_xmax(earlier) and m.xid > inside.xid and m.xid < beyond
      union all
      select t.first + m.number - 1, m.payload, m.published_at
      from unnest(late) as l(xid)
      cross join lateral (
        select m.xid, m.slot, m.number, m.payload, m.published_at
        from pgws.messages m
        where m.channel = channel_after.channel and m.cluster + 0 = pgws.cluster() and m.xid = l.xid
        order by m.number
        limit wanted
      ) m
      join pgws.transactions t on t.slot = m.slot and t.xid = m.xid and t.first > channel_after.after
    ) s
    order by s.position
    limit wanted;
end
$$;

-- The last so many messages of a channel, the newest first.
create or replace function pgws.channel_newest(channel text, wanted int)
returns table ("position" bigint, payload text, published_at timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
  bound bigint := (select s.kept from pgws.settings s);
begin
  -- So many by transaction id: what stands before all of these is not among the newest.
  select coalesce(min(s.position), bound) into bound
  from (
    select t.first + m.number - 1 as position
    from pgws.messages m join pgws.transactions t on t.slot = m.slot and t.xid = m.xid and t.first + t.count > bound
    where m.channel = channel_newest.channel and m.cluster + 0 = pgws.cluster()
    order by m.xid desc, m.number desc
    limit wanted
  ) s
  having count(*) = wanted;
  return query
    select m.*
    from pgws.channel_after(channel_newest.channel, coalesce(bound, (select s.kept from pgws.settings s)) - 1, null) m
    order by m.position desc
    limit wanted;
end
$$;

-- For those who read over SQL: the first messages behind a position, or without one the last of the channel, oldest first.
create or replace function pgws.history(channel text, since text default null, last int default 100)
returns table ("position" text, payload text, published_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  after bigint;
begin
  if history.channel is null or history.last is null or history.last < 1 then
    raise exception 'pgws.history: wants a channel, and a number of messages from 1' using errcode = 'PT400';
  end if;
  if history.since is null then
    return query
      select pgws.position_text(m.position), m.payload, m.published_at
      from pgws.channel_newest(history.channel, history.last) m
      order by m.position;
    return;
  end if;
  after := pgws.position_number(history.since);
  if after is null then
    raise exception 'pgws.history: the position % is lost: messages behind it may be gone', history.since using errcode = 'PT410';
  end if;
  return query
    select pgws.position_text(m.position), m.payload, m.published_at
    from pgws.channel_after(history.channel, after, history.last) m;
  -- A TRUNCATE shows through the snapshot of a statement that is older.
  if exists (
    select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'pgws' and c.relkind = 'r' and c.relfilenode <> pg_relation_filenode(c.oid)
  ) then
    raise exception 'pgws.history: old messages went while they were read: ask again' using errcode = 'serialization_failure';
  end if;
end
$$;

-- How far the journal reaches, from where on it is kept, and which epoch it is in.
create or replace function pgws.stand(out head bigint, out kept bigint, out epoch int)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  head := coalesce((select b.last from pgws.batches b order by b.number desc limit 1), 0);
  kept := (select s.kept from pgws.settings s);
  epoch := coalesce((select e.number from pgws.epochs e order by e.number desc limit 1), 0);
end
$$;

-- The epochs of this cluster, the earliest first. A position of any other is lost.
create or replace function pgws.epochs_here() returns setof pgws.epochs
language sql stable security definer set search_path = pg_catalog, pg_temp
as 'select e.* from pgws.epochs e where e.cluster = pgws.cluster() order by e.number';

-- To be asked when the messages behind a position have been read: before, a table could be emptied meanwhile.
create or replace function pgws.must_keep(after bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if after + 1 < (select s.kept from pgws.settings s) then
    raise exception 'pgws: messages behind % are gone', after using errcode = 'PT410';
  end if;
end
$$;

-- Up to so many messages of all channels behind a position, by position, as many as fit into so many bytes, one at least. Refuses to
-- where they are not all there, or where another epoch has begun than the reader knows of.
create or replace function pgws.read(after bigint, wanted int, bytes int, epoch int)
returns table ("position" bigint, channel text, payload text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
  start bigint := (select t.first from pgws.transactions t where t.first <= read.after + 1 order by t.first desc limit 1);
begin
  return query
    select s.position, s.channel, s.payload
    from (
      select p.*, sum(octet_length(p.payload)) over (order by p.position) - octet_length(p.payload) as ahead
      from (
        select t.first + m.number - 1 as position, m.channel, m.payload
        from pgws.transactions t
        cross join lateral (
          select m.number, m.channel, m.payload
          from pgws.messages m
          where m.slot = t.slot and m.cluster = pgws.cluster() and m.xid = t.xid and m.number > read.after - t.first + 1
          order by m.number
          limit wanted
        ) m
        where t.first >= coalesce(start, 0)
        order by t.first, m.number
        limit wanted
      ) p
    ) s
    where s.ahead < bytes or s.ahead = 0
    order by s.position;
  if read.epoch <> (select coalesce(max(e.number), 0) from pgws.epochs e) then
    raise exception 'pgws.read: another epoch has begun' using errcode = 'PT409';
  end if;
  perform pgws.must_keep(read.after);
end
$$;

-- The same for some channels.
create or replace function pgws.read_channels(channels text[], after bigint, wanted int, bytes int)
returns table ("position" bigint, channel text, payload text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan
as $$
begin
  return query
    select s.position, s.channel, s.payload
    from (
      select p.*, sum(octet_length(p.payload)) over (order by p.position) - octet_length(p.payload) as ahead
      from (
        select m.position, c.channel, m.payload
        from (select distinct u.channel from unnest(read_channels.channels) as u(channel)) c
        cross join lateral pgws.channel_after(c.channel, read_channels.after, wanted) m
        order by m.position
        limit wanted
      ) p
    ) s
    where s.ahead < bytes or s.ahead = 0
    order by s.position;
  perform pgws.must_keep(read_channels.after);
end
$$;

-- Behind which position the last so many messages of some channels lie; null where there are none.
create or replace function pgws.newest(channels text[], wanted int) returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select min(s.position) - 1
  from (
    select m.position
    from (select distinct u.channel from unnest(newest.channels) as u(channel)) c
    cross join lateral pgws.channel_newest(c.channel, wanted) m
    order by m.position desc
    limit wanted
  ) s
$$;

-- Begins a sequencer's session: a new epoch where history may have forked, and how long messages are kept. Returns for how many
-- seconds each table is filled.
create or replace function pgws.begin_session(retention interval) returns double precision
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  newest pgws.epochs;
  head pgws.batches;
  setting pgws.settings;
begin
  perform pg_advisory_xact_lock(1885828979, 1);
  update pgws.settings s
  set retention = begin_session.retention, slot_seconds = extract(epoch from begin_session.retention) / 2
  where s.retention <> begin_session.retention;
  select * into newest from pgws.epochs e order by e.number desc limit 1;
  select * into head from pgws.batches b order by b.number desc limit 1;
  select * into setting from pgws.settings;
  if newest.cluster = pgws.cluster() and newest.timeline = pgws.timeline() then
    return setting.slot_seconds;
  end if;
  insert into pgws.epochs (number, cluster, timeline, began)
  values (coalesce(newest.number, 0) + 1, pgws.cluster(), pgws.timeline(), coalesce(head.last, 0) + 1);
  if newest.cluster is distinct from pgws.cluster() then
    -- Nothing of this cluster was ever looked at.
    update pgws.settings set kept = coalesce(head.last, 0) + 1;
    insert into pgws.batches (number, last, snapshot, taken_at, slot, next_slot)
    select coalesce(head.number, 0) + 1, coalesce(head.last, 0), '3:3:', clock_timestamp(), coalesce(head.next_slot, p.slot), p.slot
    from pgws.slot(setting.slot_seconds) as p(slot);
  end if;
  return setting.slot_seconds;
end
$$;

-- The look: gives consecutive positions to the transactions that became visible since the last batch. Two that look at once do no
-- harm: both follow the same batch, and the second one's is a duplicate.
create or replace function pgws.look(
  is_forced boolean default false,
  out head bigint, out fresh int, out oldest xid8, out backend int
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
  previous pgws.batches;
  present pg_snapshot;
  with_keys xid8[];
begin
  select * into strict previous from pgws.batches b order by b.number desc limit 1;
  with visible as materialized (
    -- Not what lies behind the oldest transaction of that time: a long one would have an hour of messages read at each look.
    select m.xid, m.slot, max(m.number) as count, bool_or(m.has_key) as has_key
    from pgws.messages m
    where m.cluster = pgws.cluster() and m.xid >= pg_snapshot_xmax(previous.snapshot)
    group by m.xid, m.slot
    union all
    select late.*
    from pg_snapshot_xip(previous.snapshot) as under_way(xid)
    cross join lateral (
      select m.xid, m.slot, max(m.number), bool_or(m.has_key)
      from pgws.messages m
      where m.cluster = pgws.cluster() and m.xid = under_way.xid
      group by m.xid, m.slot
    ) late
  ), placed as (
    insert into pgws.transactions (first, xid, count, slot)
    select previous.last + 1 + sum(v.count) over (order by v.xid rows unbounded preceding) - v.count, v.xid, v.count, v.slot
    from visible v
    order by v.xid
  )
  select coalesce(sum(v.count), 0), array_agg(v.xid) filter (where v.has_key), pg_current_snapshot() into fresh, with_keys, present
  from visible v;

  head := previous.last + fresh;
  oldest := pg_snapshot_xmin(present);
  backend := pg_backend_pid();
  if fresh > 0 or is_forced then
    insert into pgws.batches (number, last, snapshot, taken_at, slot, next_slot)
    select previous.number + 1, head, present, clock_timestamp(), previous.next_slot, pgws.slot(s.slot_seconds)
    from pgws.settings s;
  end if;
  if with_keys is not null then
    perform pgws.drop_duplicates(with_keys, previous.snapshot, present);
  end if;
  if fresh > 0 then
    perform pg_notify('pgws_sequenced', head::text);
  end if;
end
$$;

-- Of the messages of some transactions, new between two looks, takes away those whose key another one had within the hour: one of an earlier look, or one that
-- stands before it. Only two transactions that were under way at once can come here with the same key.
create or replace function pgws.drop_duplicates(xids xid8[], previous pg_snapshot, present pg_snapshot) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan
as $$
begin
  with twice as (
    delete from pgws.keys d
    where d.cluster = pgws.cluster() and d.xid = any (xids)
      and exists (
        select from pgws.keys k
        where k.hash = d.hash and k.channel = d.channel and k.key = d.key
          and k.published_at between d.published_at - interval '1 hour' and d.published_at + interval '1 hour'
          and (k.cluster <> d.cluster or pg_visible_in_snapshot(k.xid, present)
            and (pg_visible_in_snapshot(k.xid, previous) or (k.xid, k.number) < (d.xid, d.number)))
      )
    returning d.message_slot, d.xid, d.number
  )
  delete from pgws.messages m
  using twice
  where m.slot = twice.message_slot and m.cluster = pgws.cluster() and m.xid = twice.xid and m.number = twice.number;
end
$$;

-- Wakes the sequencer up, where it is not awake, or lets it fall asleep; publishers ring unless it is awake. Returns, for one that
-- falls asleep, a transaction id: whoever has a smaller one and is still under way did not ring.
create or replace function pgws.wake() returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as 'select pg_try_advisory_lock(1885828979, 3)';

create or replace function pgws.fall_asleep() returns xid8
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_unlock(1885828979, 3);
  return pg_current_xact_id();
end
$$;

-- One server at a time is the sequencer.
create or replace function pgws.become_sequencer() returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as 'select pg_try_advisory_lock(1885828979, 2)';

-- Ends the session of a sequencer that does not look any more: its server hangs, or is cut off. Null where it does look, and takes its
-- time; false where it may not be ended.
create or replace function pgws.replace_sequencer() returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  holder pg_stat_activity;
begin
  select a.* into holder
  from pg_locks l join pg_stat_activity a on a.pid = l.pid
  where l.locktype = 'advisory' and l.classid = 1885828979 and l.objid = 2 and l.granted and l.pid <> pg_backend_pid()
    and l.database = (select d.oid from pg_database d where d.datname = current_database());
  if holder.state = 'active' then
    return null;
  end if;
  return holder.pid is null or pg_terminate_backend(holder.pid);
exception when insufficient_privilege then
  return false;
end
$$;

-- Gives back what a session behind a pooler took, when it comes across it again.
create or replace function pgws.release() returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select pg_advisory_unlock(l.classid::int, l.objid::int)
  from pg_locks l
  where l.locktype = 'advisory' and l.classid = 1885828979 and l.objid in (2, 3) and l.pid = pg_backend_pid()
$$;

-- Whether a message is visible that has no position yet.
create or replace function pgws.is_behind() returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
  seen pg_snapshot := (select b.snapshot from pgws.batches b order by b.number desc limit 1);
begin
  return exists (select from pgws.messages m where m.cluster = pgws.cluster() and m.xid >= pg_snapshot_xmax(seen))
    or exists (
      select from pg_snapshot_xip(seen) as under_way(xid) join pgws.messages m on m.xid = under_way.xid
      where m.cluster = pgws.cluster()
    );
end
$$;

-- Empties tables whose time is over. Waits for nothing: a table that somebody still uses is left for the next time. What is emptied is
-- neither the table that is filled now nor, towards the end of its time, the one after it, so no INSERT waits either.
create or replace function pgws.rotate() returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off
as $$
declare
  setting pgws.settings;
  head pgws.batches;
  elapsed double precision;
  emptied int := 0;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'pgws.rotate: must see what was committed while it waited: run it in read committed';
  end if;
  select * into setting from pgws.settings;
  select * into head from pgws.batches b order by b.number desc limit 1;
  elapsed := extract(epoch from clock_timestamp()) / setting.slot_seconds;
  for place in 0..3 loop
    continue when place = floor(elapsed)::bigint % 4;
    continue when place = (floor(elapsed)::bigint + 1) % 4 and elapsed - floor(elapsed) > 0.9;
    if pgws.empty_messages(place, setting, head) then
      emptied := emptied + 1;
    end if;
    perform pgws.empty_batches(place, head);
  end loop;
  elapsed := extract(epoch from clock_timestamp()) / 1800;
  perform pgws.empty_keys(((floor(elapsed)::bigint + 1) % 4)::int) where elapsed - floor(elapsed) < 0.9;
  if (head.slot, head.next_slot) is distinct from (head.next_slot, pgws.slot(setting.slot_seconds)) then
    -- The newest batch holds its table: an idle journal goes on to the next one.
    perform pgws.look(true);
  end if;
  return emptied;
end
$$;

create or replace function pgws.empty_messages(place int, setting pgws.settings, head pgws.batches) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
  reaches bigint := (select t.first + t.count - 1 from pgws.transactions t where t.slot = place order by t.first desc limit 1);
  begins bigint := (select t.first from pgws.transactions t where t.slot = place order by t.first limit 1);
begin
  if reaches is null then
    return false;
  end if;
  -- The age of the youngest: when it was given its position. Where a long transaction of each round kept the table young, that of the
  -- oldest decides: readers are told then.
  if (select b.taken_at from pgws.batches b where b.last >= reaches order by b.last, b.number limit 1)
      > clock_timestamp() - setting.retention
    and (select b.taken_at from pgws.batches b where b.last >= begins order by b.last, b.number limit 1)
      > clock_timestamp() - 4 * setting.retention
  then
    return false;
  end if;
  execute format('lock table pgws.messages_%s, pgws.transactions_%s in access exclusive mode nowait', place, place);
  -- Committed, but not looked at yet.
  if exists (
    select from pgws.messages m
    where m.slot = place and m.cluster = pgws.cluster() and not pg_visible_in_snapshot(m.xid, head.snapshot)
      and (m.xid >= pg_snapshot_xmax(head.snapshot) or m.xid = any (array(select pg_snapshot_xip(head.snapshot))))
  ) then
    return false;
  end if;
  execute format('truncate pgws.messages_%s, pgws.transactions_%s', place, place);
  update pgws.settings s set kept = reaches + 1 where s.kept <= reaches;
  return true;
exception when lock_not_available then
  return false;
end
$$;

create or replace function pgws.empty_batches(place int, head pgws.batches) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan
as $$
begin
  if head.slot <> place and exists (select from pgws.batches b where b.slot = place)
    and not exists (select from pgws.batches b, pgws.settings s where b.slot = place and b.last >= s.kept)
  then
    execute format('lock table pgws.batches_%s in access exclusive mode nowait', place);
    execute format('truncate pgws.batches_%s', place);
  end if;
exception when lock_not_available then
  null;
end
$$;

create or replace function pgws.empty_keys(place int) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from pgws.keys k where k.slot = place) or exists (select from pgws.sent s where s.slot = place) then
    execute format('lock table pgws.keys_%s, pgws.sent_%s in access exclusive mode nowait', place, place);
    execute format('truncate pgws.keys_%s, pgws.sent_%s', place, place);
  end if;
exception when lock_not_available then
  null;
end
$$;

-- What the journal holds: messages from the oldest that is kept, bytes of all its tables, and for how many seconds the oldest has been
-- in it; and for how many the oldest message has been committed that lies behind a position, or has none yet.
create or replace function pgws.holdings(
  after bigint,
  out messages bigint, out bytes bigint, out age double precision, out lag double precision
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set enable_sort = off set jit = off
as $$
declare
  first constant bigint := (select s.kept from pgws.settings s);
  head pgws.batches;
begin
  select * into head from pgws.batches b order by b.number desc limit 1;
  messages := greatest(coalesce(head.last, 0) - first + 1, 0);
  bytes := (
    select sum(pg_total_relation_size(c.oid)) from pg_class c where c.relnamespace = 'pgws'::regnamespace and c.relkind = 'r'
  );
  age := coalesce((
    select extract(epoch from clock_timestamp() - b.taken_at)
    from pgws.batches b
    where b.last >= first
    order by b.last, b.number limit 1
  ), 0);
  lag := coalesce((
    select extract(epoch from clock_timestamp() - min(waits.since))
    from (
      (select b.taken_at as since from pgws.batches b where b.last > holdings.after order by b.last, b.number limit 1)
      union all
      (
        -- A long transaction published long before it was committed.
        select greatest(m.published_at, head.taken_at)
        from pgws.messages m
        where m.cluster = pgws.cluster() and m.xid >= pg_snapshot_xmax(head.snapshot)
        order by m.xid, m.number limit 1
      )
      union all
      (
        select head.taken_at
        from pg_snapshot_xip(head.snapshot) as under_way(xid) join pgws.messages m on m.xid = under_way.xid
        where m.cluster = pgws.cluster()
        limit 1
      )
    ) waits
  ), 0);
end
$$;

-- A function that came with an upgrade is for those whom the sequencer's are for: a server's role.
do $$
declare
  lacking record;
begin
  for lacking in
    select made.oid::regprocedure as function, given.grantee::regrole as role
    from pg_proc known cross join aclexplode(known.proacl) as given cross join pg_proc made
    where known.oid = 'pgws.look'::regproc and given.privilege_type = 'EXECUTE' and given.grantee not in (0, known.proowner)
      and made.pronamespace = 'pgws'::regnamespace and made.proacl is null
  loop
    execute format('grant execute on function %s to %s', lacking.function, lacking.role);
  end loop;
end
$$;

revoke all on all functions in schema pgws from public;
