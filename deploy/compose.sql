-- The database of compose.yaml: ordinary roles, and something for PostgREST to expose. deploy/token.sql and deploy/compose-chat.sql come after it.
create role web_anon nologin;
create role web_user nologin;
create role authenticator login noinherit password 'for-trying-out-only';
grant web_anon, web_user to authenticator;
-- It asks what users may as web_user, and has no other right of theirs.
create role websockets_server login noinherit password 'for-trying-out-only';
grant web_user to websockets_server;

create schema api;
grant usage on schema api to web_anon, web_user;

create table api.orders (id bigint generated always as identity primary key, item text not null, status text not null default 'new');
grant select on api.orders to web_anon;
grant select, insert, update, delete on api.orders to web_user;
