-- Who may log in to the database of compose.yaml, and who may read and write which channel. The database decides: tokens name no channels.
create schema chat;
grant usage on schema chat to web_user;

create table chat.people (name text primary key, password text not null);
insert into chat.people
  select name, websockets.crypt('for-trying-out-only', websockets.gen_salt('bf')) from unnest(array['ada', 'grace']) as name;

-- A token for PostgREST and postgres-websockets alike.
create function api.login(name text, password text) returns text language plpgsql stable security definer
  set search_path = websockets, chat, pg_temp as $$
begin
  perform from people where people.name = login.name and people.password = crypt(login.password, people.password);
  if not found then
    raise invalid_password using message = 'wrong name or password';
  end if;
  return sign(json_build_object('role', 'web_user', 'mode', 'rw', 'sub', login.name, 'name', initcap(login.name),
    'exp', extract(epoch from now())::bigint + 3600));
end $$;
revoke execute on function api.login(text, text) from public;
grant execute on function api.login(text, text) to web_anon;

create table chat.members (
  channel text, person text references chat.people, mode text not null check (mode in ('r', 'w', 'rw')), primary key (channel, person));
insert into chat.members
  select channel, name, mode from chat.people, (values ('chat', 'rw'), ('orders', 'r'), ('server-info', 'r')) as may (channel, mode);
alter table chat.members enable row level security;
create policy own_rows on chat.members to web_user using (person = current_setting('request.jwt.claims')::json ->> 'sub');
grant select on chat.members to web_user;

create function chat.may(channel text) returns text language sql stable as
  $$ select mode from chat.members where members.channel = may.channel $$;
revoke execute on function chat.may(text) from public;
grant execute on function chat.may(text) to web_user;

-- Who is taken out is out at once.
create function chat.ask_again() returns trigger language plpgsql as $$ begin notify pgws_authorize; return null; end $$;
create trigger ask_again after update or delete on chat.members for each statement execute function chat.ask_again();
