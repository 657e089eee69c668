/** Owns the breaks of the function that handles messages. */
import type { Mutant } from './mutant.ts'

const test = 'test/contract/message-function.test.ts'
const statement = { file: 'lib/rules/call-statement.ts', test }
const lane = { file: 'lib/rules/lane.ts', test }

export const messageFunction: readonly Mutant[] = [
  {
    ...statement,
    find: "perform pg_catalog.set_config('search_path', path, false);",
    replace: '',
    promise: 'A call leaves no path to the next',
    title: 'nothing of one call reaches another',
    hangs: true,
  },
  {
    ...statement,
    find: "if current_user <> caller_name then perform set_config('role', coalesce(caller, own_role), true); end if;",
    replace: '',
    promise: 'A call leaves no role to the next',
    title: 'nothing of one call reaches another',
  },
  {
    ...statement,
    find: "set_config('request.jwt.claims', claims[f], true)",
    replace: "set_config('request.jwt.claims', claims[1], true)",
    promise: "Each call has its own sender's claims",
    title: 'nothing of one call reaches another',
  },
  {
    ...statement,
    find: 'is_large := octet_length(envelope) >= limits[f];',
    replace: '',
    promise: 'A result too large refuses its message alone',
    title: 'a POST is answered with what the function says',
  },
  {
    ...lane,
    find: 'return isAlone ? refuse(batch, fault) : split(batch, Math.ceil(messages.length / 2))',
    replace: 'return refuse(batch, fault)',
    promise: 'What fails at the commit refuses its message alone',
    title: 'concerns its message alone, in the order',
  },
  {
    ...lane,
    find: 'again.push({ messages, attempts })',
    replace: 'refuse(batch, fault)',
    promise: 'A batch whose session breaks is sent again',
    title: 'a session that is killed in the middle',
    hangs: true,
  },
  {
    file: 'lib/rules/senders.ts',
    test,
    find: 'if (line.out > 0) return true',
    replace: '',
    promise: 'A message waits while another of its sender is out',
    title: "and a sender's order stands",
  },
  {
    ...lane,
    find: 'answer: reason }',
    replace: 'message: reason }',
    promise: 'A refusal at the commit does not tell where the database is',
    title: 'a POST is answered with what the function says',
  },
  {
    file: 'lib/rules/handler.ts',
    test: 'test/contract/message-journal.test.ts',
    find: "if (state === 'flowing') state = 'paused'",
    replace: '',
    promise: 'No message is handled while nobody listens',
    title: 'while the listener is away',
  },
  {
    ...statement,
    test: 'test/contract/message-journal.test.ts',
    find: 'if kept[f] then',
    replace: 'if false then',
    promise: 'What the function returns is kept on a channel with history',
    title: 'on a channel with history',
  },
  {
    file: 'lib/database/lasting-session.ts',
    test: 'test/unit/lasting-session.test.ts',
    find: 'opening ??= establish()',
    replace: 'opening = establish()',
    promise: 'All who need a session at once get the same one',
    title: 'all who need the session while it opens',
  },
]
