begin;
-- Nobody but its owner may use this schema, and so read the secret or sign with it.
create schema websockets;
create extension if not exists pgcrypto with schema websockets;
create table websockets.secret (value text not null);
insert into websockets.secret select encode(websockets.gen_random_bytes(32), 'hex');

create function websockets.base64url(data bytea) returns text language sql immutable as
  $$ select translate(encode(data, 'base64'), E'+/=\n', '-_') $$;

create function websockets.sign(claims json) returns text language sql stable set search_path = websockets, pg_temp as $$
  select signed || '.' || base64url(hmac(signed, value, 'sha256'))
  from secret, concat(base64url('{"alg":"HS256","typ":"JWT"}'), '.', base64url(convert_to(claims::text, 'utf8'))) as signed
$$;

-- Null for who is not logged in: PostgREST leaves the claims empty then.
create function api.websocket_token() returns json language sql stable security definer set search_path = websockets, pg_temp as $$
  select json_build_object('token', sign(json_build_object('mode', 'rw', 'channels', json_build_array('chat'),
    'role', claims ->> 'role', 'sub', claims ->> 'sub', 'exp', extract(epoch from now())::bigint + 3600)))
  from cast(nullif(current_setting('request.jwt.claims', true), '') as json) as claims
  where claims ->> 'sub' is not null
$$;

-- A new function may be executed by everyone.
revoke execute on function api.websocket_token() from public;
grant execute on function api.websocket_token() to web_user;
commit;
