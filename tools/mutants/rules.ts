/** Owns the breaks of what the database decides. */
import type { Mutant } from './mutant.ts'

const authority = { test: 'test/contract/authority.test.ts' }
const authorize = { test: 'test/contract/authorize.test.ts' }

export const rules: readonly Mutant[] = [
  {
    ...authority,
    file: 'lib/rules/decision.ts',
    find: "set_config('search_path', path, false), pg_catalog.set_config('role', own_role, false)",
    replace: "set_config('role', own_role, false)",
    promise: 'Role and claims of one question are never there in another',
    title: 'a call leaves no role, claims or path to the next',
  },
  {
    ...authority,
    file: 'lib/rules/authority.ts',
    find: 'Map.groupBy(asked, ({ role }) => role)',
    replace: "Map.groupBy(asked, () => '')",
    promise: 'Each is asked about under the role of its token',
    title: 'each question is asked under its role and claims',
  },
  {
    ...authority,
    file: 'lib/rules/questions.ts',
    find: 'if (round !== rounds)',
    replace: 'if (round > rounds)',
    promise: 'What was being decided when all was to be asked again is asked again',
    title: 'a decision is remembered for a second',
  },
  {
    ...authority,
    file: 'lib/rules/authority.ts',
    find: '(isPassing && code !== CANCELED)',
    replace: 'isPassing',
    promise: 'An error of the function concerns its caller alone',
    title: 'what no exception block catches concerns its caller alone',
  },
  {
    ...authorize,
    file: 'lib/access/grant.ts',
    find: "  canRead && (rights === undefined || rights.get(channel)?.includes('r') === true)",
    replace: '  canRead',
    promise: 'What the database does not let a client read it does not get',
    title: 'event streams and POST ask as an upgrade does',
  },
  {
    ...authorize,
    file: 'lib/rules/rules.ts',
    find: '        review()\n',
    replace: '',
    promise: 'pgws.authorize_again() asks again about who is connected',
    title: 'who loses access is told at once',
    hangs: true,
  },
  {
    ...authority,
    file: 'lib/rules/authority.ts',
    find: '(round === rounds ? found : decide({ claims, role }, channels))',
    replace: 'found',
    promise: 'pgws.authorize_again() passes by what is remembered',
    title: 'what was remembered is forgotten, too',
  },
  {
    test: 'test/unit/reviews.test.ts',
    file: 'lib/channels/reviews.ts',
    find: 'return next > now() ? next : now() + every',
    replace: 'return now() + every',
    promise: 'Clients are asked about again spread over the interval',
    title: 'reviews stay spread over the interval',
  },
  {
    ...authority,
    file: 'lib/rules/authority.ts',
    find: 'alike.length > PART ? PART : 1',
    replace: 'Math.ceil(alike.length / 2)',
    promise: 'A call without end keeps others waiting for three time limits',
    title: 'a call without end keeps the others',
  },
]
