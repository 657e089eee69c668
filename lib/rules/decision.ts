/** Owns the statement by which the function of PGWS_AUTHORIZE_FUNCTION is asked for many clients at once, and how its answers read. */

import type { Row } from '../database/connection.ts'
import type { Statement } from './transactions.ts'

export interface Question {
  /** The token's claims as they stand in it. */
  readonly claims: string
  /** Undefined asks under the role of the server. */
  readonly role: string | undefined
  readonly channel: string
}

export type Answer =
  | { readonly answer: string | null }
  /** @property step where it failed: "role" ahead of the call, "call" in it. */
  | { readonly step: 'role' | 'call'; readonly code: string; readonly message: string }

/**
 * A call may leave another role, other claims or another path behind, but the next one does not see them: each is set anew. What stands
 * right behind the call is written with its schema, and set for the session: a call may have done that, too. A call that fails is undone.
 */
const DECIDE = `do $pgws$
declare
  asked constant json := current_setting('pgws.questions');
  own_role constant text not null := current_setting('role');
  path constant text not null := current_setting('search_path');
  call constant text := asked->>'call';
  claims constant text[] := array(select value from json_array_elements_text(asked->'claims'));
  role constant text := asked->>'role';
  who constant int[] := array(select value::int from json_array_elements_text(asked->'who'));
  channels constant text[] := array(select value from json_array_elements_text(asked->'channels'));
  answers text[];
  answer text;
  step text;
  code text;
  message text;
begin
  for i in 1 .. cardinality(channels) loop
    begin
      step := 'role';
      perform set_config('request.jwt.claims', claims[who[i]], true);
      if role is not null then
        perform set_config('role', role, true);
      end if;
      step := 'call';
      execute call into answer using channels[i];
      perform pg_catalog.set_config('search_path', path, false), pg_catalog.set_config('role', own_role, false);
      step := 'answered';
    exception when others or assert_failure then
      code := sqlstate;
      message := sqlerrm;
    end;
    answers[i] := case step when 'answered' then json_build_object('answer', left(answer, 100))
      else json_build_object('step', step, 'code', code, 'message', left(message, 500)) end;
  end loop;
  perform set_config('request.jwt.claims', '', false);
  perform set_config('pgws.answers', '[' || coalesce(array_to_string(answers, ','), '') || ']', true);
end
$pgws$`

/** Behind a fault some are asked again, up to three times in all: whoever waits is to have an answer within 10 s. */
const LIMIT = `select set_config('statement_timeout', '3s', true)
  where current_setting('statement_timeout')::interval not between interval '1 ms' and interval '3 s'`

/**
 * All of one role: PostgreSQL looks only once a transaction at whether a role may execute the functions in an expression of PL/pgSQL.
 *
 * @param name schema and name of the function, each in double quotes.
 */
export function decisionStatements(name: string, role: string | undefined, questions: readonly Question[]): readonly Statement[] {
  const claims = new Map<string, number>()
  const who = questions.map((question) => {
    const number = claims.get(question.claims) ?? claims.size + 1
    claims.set(question.claims, number)
    return number
  })
  const asked = {
    call: `select ${name}($1)`,
    role,
    claims: [...claims.keys()],
    who,
    channels: questions.map(({ channel }) => channel),
  }
  return [
    { text: LIMIT },
    { text: "select set_config('pgws.questions', $1, true)", parameters: [JSON.stringify(asked)] },
    { text: DECIDE },
    { text: "select current_setting('pgws.answers') as answers" },
  ]
}

/** @param rows of the last of the statements. @returns the answers in the order of the questions. */
export function readAnswers([row]: readonly Row[]): readonly Answer[] {
  // It is what the statement itself has written.
  return JSON.parse(String(row?.answers)) as readonly Answer[]
}
