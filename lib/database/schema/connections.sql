-- Who is connected, and orders to end connections. It follows journal.sql, in the same transaction.
--
--     servers    each server that writes rows here, and when it was last heard of
--     sessions   a row for each connection
--     orders     which connections to end, and which tokens to let in no more
--
-- The first two are unlogged. A crash and a failover empty them, and each server that finds its own row gone writes everything anew.

create unlogged table if not exists pgws.servers (
  name text primary key,
  seen_at timestamptz not null,
  -- Whether Joined and Left are published for its connections.
  has_presence boolean not null,
  -- With these claims; null is all.
  shown_claims text[]
) with (fillfactor = 50, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);

create unlogged table if not exists pgws.sessions (
  server text not null,
  id text not null,
  claims jsonb not null,
  channels text[] not null,
  mode text not null,
  door text not null,
  address inet,
  opened_at timestamptz not null,
  primary key (server, id)
) with (fillfactor = 85, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);

-- An order ends the connections whose claims contain these. With `until`, no such token is let in before then.
create table if not exists pgws.orders (
  -- Rows that a dump brought from another cluster carry that cluster's transaction ids, which mean nothing here.
  cluster bigint not null,
  xid xid8 not null,
  ordered_at timestamptz not null,
  -- A server whose LISTEN is away learns of it later.
  kept_until timestamptz not null,
  until timestamptz,
  claims jsonb not null,
  reason text not null
);
create index if not exists orders_order on pgws.orders (cluster, xid);
create index if not exists orders_kept_until on pgws.orders (kept_until);
create index if not exists orders_claims on pgws.orders using hash (claims);

-- Rows of a server that is gone are not shown.
create or replace view pgws.connections as
  select s.server, s.id, s.claims, s.channels, s.mode, s.door, s.address, s.opened_at
  from pgws.sessions s join pgws.servers v on v.name = s.server
  where v.seen_at > clock_timestamp() - interval '15 s';

revoke all on pgws.servers, pgws.sessions, pgws.orders, pgws.connections from public;

-- The journal's channel on which Joined and Left are published for a channel.
create or replace function pgws.presence(channel text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select 'pgws.presence:' || channel $$;

-- For the functions below.
create or replace function pgws.order_end(claims jsonb, reason text, until timestamptz) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if order_end.claims is null or jsonb_typeof(order_end.claims) <> 'object' then
    raise exception 'pgws: the claims are %, and must be an object such as {"sub": "anna"}',
      coalesce('of type ' || jsonb_typeof(order_end.claims), 'null') using errcode = 'invalid_parameter_value';
  end if;
  -- It says what these said, and more.
  delete from pgws.orders o where o.claims = order_end.claims and o.until <= order_end.until;
  insert into pgws.orders (cluster, xid, ordered_at, kept_until, until, claims, reason)
  values (
    pgws.cluster(), pg_current_xact_id(), clock_timestamp(),
    greatest(order_end.until, clock_timestamp() + interval '5 minutes'), order_end.until, order_end.claims, order_end.reason
  );
  perform pg_notify('pgws_connections', '');
end
$$;

-- Ends every connection whose claims contain these, on every server. An empty object ends all.
create or replace function pgws.disconnect(claims jsonb, reason text default 'disconnected') returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgws.order_end(disconnect.claims, coalesce(left(disconnect.reason, 123), 'disconnected'), null);
end
$$;

-- The same, and lets no token in whose claims contain these until then.
create or replace function pgws.revoke(claims jsonb, until timestamptz) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if revoke.until is null then
    raise exception 'pgws.revoke: says not until when' using errcode = 'null_value_not_allowed';
  end if;
  -- Until a time that has passed, it only ends connections.
  perform pgws.order_end(revoke.claims, 'Token revoked', case when revoke.until > clock_timestamp() then revoke.until end);
end
$$;

-- Has every server ask again what its clients may.
create or replace function pgws.authorize_again() returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$ select pg_notify('pgws_authorize', '') $$;

-- What follows is for servers.

-- A token may hold what jsonb cannot.
create or replace function pgws.claims_of(text) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return $1::jsonb;
exception when others then
  return '{}';
end
$$;

create or replace function pgws.address_of(text) returns inet
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return $1::inet;
exception when others then
  return null;
end
$$;

-- Tells who came to channels or left them. Nothing fails because the journal refuses a name or a text.
create or replace function pgws.tell_presence(event text, ids text[], claims jsonb[], channels text[], shown text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgws.publish(p.channel, p.payload)
  from (
    select pgws.presence(t.channel) as channel,
      format('{"event":%s,"client":%s,"claims":%s}', to_json(tell_presence.event), to_json(t.id), c.claims) as payload
    from unnest(ids, tell_presence.claims, channels) with ordinality as t(id, claims, channel, place)
    cross join lateral (
      select case when shown is null then t.claims
        else (select coalesce(jsonb_object_agg(m.key, m.value), '{}') from jsonb_each(t.claims) m where m.key = any (shown))
      end as claims
    ) c
    -- Who looks at who is there is not looked at.
    where not starts_with(t.channel, pgws.presence(''))
    order by t.place
  ) p
  where octet_length(p.channel) <= 1024 and octet_length(p.payload) <= 1048576;
end
$$;

create or replace function pgws.remove_server(server text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  own pgws.servers;
  ids text[];
  claims jsonb[];
  channels text[];
begin
  -- Writers of its rows hold a lock on this one.
  delete from pgws.servers s where s.name = remove_server.server returning s.* into own;
  if own.has_presence then
    select array_agg(s.id), array_agg(s.claims), array_agg(c.channel) into ids, claims, channels
    from pgws.sessions s, unnest(s.channels) as c(channel)
    where s.server = remove_server.server;
    perform pgws.tell_presence('Left', ids, claims, channels, own.shown_claims);
  end if;
  delete from pgws.sessions s where s.server = remove_server.server;
end
$$;

-- A server begins, or begins again. `shown_claims` is a JSON list, or empty for all.
create or replace function pgws.connections_begin(server text, has_presence boolean, shown_claims text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgws.remove_server(connections_begin.server);
  insert into pgws.servers (name, seen_at, has_presence, shown_claims)
  values (
    connections_begin.server, clock_timestamp(), connections_begin.has_presence,
    case when connections_begin.shown_claims <> '' then array(select json_array_elements_text(connections_begin.shown_claims::json)) end
  );
end
$$;

-- Writes connections that are new or changed, as a JSON list, and removes those that are gone, a JSON list of ids. False where the
-- server's own row is gone, and then nothing is done.
create or replace function pgws.connections_write(server text, present text, gone text) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
declare
  own pgws.servers;
  told record;
begin
  select s.* into own from pgws.servers s where s.name = connections_write.server for share;
  if not found then
    return false;
  end if;
  with given as materialized (
    select p.id, pgws.claims_of(p.claims) as claims, p.channels, p.mode, p.door, pgws.address_of(p.address) as address,
      clock_timestamp() - p.seconds * interval '1 s' as opened_at
    from json_to_recordset(connections_write.present::json)
      as p(id text, claims text, channels text[], mode text, door text, address text, seconds double precision)
  ), earlier as materialized (
    select s.id, s.claims, s.channels
    from pgws.sessions s
    where s.server = connections_write.server and s.id = any (array(select g.id from given g))
  ), removed as (
    delete from pgws.sessions s
    where s.server = connections_write.server and s.id = any (array(select json_array_elements_text(connections_write.gone::json)))
    returning s.id, s.claims, s.channels
  ), written as (
    insert into pgws.sessions as s (server, id, claims, channels, mode, door, address, opened_at)
    select connections_write.server, g.id, g.claims, g.channels, g.mode, g.door, g.address, g.opened_at
    from given g
    on conflict on constraint sessions_pkey do update set claims = excluded.claims, channels = excluded.channels, mode = excluded.mode
  ), changes as (
    select r.id, r.claims, c.channel, false as has_joined
    from removed r, unnest(r.channels) as c(channel)
    union all
    select e.id, e.claims, c.channel, false
    from earlier e join given g on g.id = e.id cross join unnest(e.channels) as c(channel)
    where c.channel <> all (g.channels)
    union all
    select g.id, g.claims, c.channel, true
    from given g left join earlier e on e.id = g.id cross join unnest(g.channels) as c(channel)
    where c.channel = any (e.channels) is not true
  )
  select array_agg(c.id) filter (where c.has_joined) as joined, array_agg(c.claims) filter (where c.has_joined) as joined_claims,
    array_agg(c.channel) filter (where c.has_joined) as joined_channels,
    array_agg(c.id) filter (where not c.has_joined) as parted, array_agg(c.claims) filter (where not c.has_joined) as parted_claims,
    array_agg(c.channel) filter (where not c.has_joined) as parted_channels
  into told
  from changes c
  where own.has_presence;
  perform pgws.tell_presence('Left', told.parted, told.parted_claims, told.parted_channels, own.shown_claims);
  perform pgws.tell_presence('Joined', told.joined, told.joined_claims, told.joined_channels, own.shown_claims);
  return true;
end
$$;

-- A sign of life, and what was ordered that a snapshot did not see, or without one all that is in force, as a JSON list. `reaps` also
-- removes what is no longer in force, and a server that is gone.
create or replace function pgws.connections_look(
  server text, since text, reaps boolean,
  out is_known boolean, out snapshot text, out orders text
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
declare
  seen constant pg_snapshot := nullif(connections_look.since, '');
  gone text;
begin
  update pgws.servers s set seen_at = clock_timestamp() where s.name = connections_look.server;
  is_known := found;
  select pg_current_snapshot()::text, json_agg(json_build_object(
      'claims', o.claims::text, 'reason', o.reason, 'age', extract(epoch from clock_timestamp() - o.ordered_at),
      'left', case when o.until = 'infinity' then 1e12 else extract(epoch from o.until - clock_timestamp()) end
    ) order by o.ordered_at)::text
  into snapshot, orders
  from pgws.orders o
  where seen is null and o.kept_until > clock_timestamp()
    or o.cluster = pgws.cluster() and (o.xid >= pg_snapshot_xmax(seen) or o.xid = any (array(select pg_snapshot_xip(seen))));
  if reaps then
    delete from pgws.orders o
    where o.ctid in (select d.ctid from pgws.orders d where d.kept_until < clock_timestamp() limit 1000 for update skip locked);
    select s.name into gone from pgws.servers s
    where s.seen_at < clock_timestamp() - interval '15 s'
    limit 1 for update skip locked;
    if found then
      perform pgws.remove_server(gone);
    end if;
  end if;
end
$$;

-- A server stops.
create or replace function pgws.connections_end(server text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$ select pgws.remove_server(connections_end.server) $$;

revoke all on all functions in schema pgws from public;
