-- The database of compose.yaml: ordinary roles, and something for PostgREST to expose. deploy/token.sql comes after it.
create role web_anon nologin;
create role web_user nologin;
create role authenticator login noinherit password 'for-trying-out-only';
grant web_anon, web_user to authenticator;
create role websockets_server login password 'for-trying-out-only';

create schema api;
grant usage on schema api to web_anon, web_user;

create table api.orders (id bigint generated always as identity primary key, item text not null);
grant select on api.orders to web_anon;
grant select, insert, update, delete on api.orders to web_user;

create function api.notify_order() returns trigger language plpgsql as $$
begin
  perform pg_notify('postgres-websockets-listener', json_build_object(
    'event', 'WebsocketMessage', 'channel', 'orders',
    'payload', json_build_object('operation', tg_op, 'id', coalesce(new.id, old.id)))::text);
  return null;
end $$;

create trigger notify_order after insert or update or delete on api.orders for each row execute function api.notify_order();
