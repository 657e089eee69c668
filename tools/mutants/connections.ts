/** Owns the breaks of connections in the database, and of its orders. */
import type { Mutant } from './mutant.ts'

const contract = { test: 'test/contract/connections.test.ts' }
const sql = { file: 'lib/database/schema/connections.sql' }

export const connections: readonly Mutant[] = [
  {
    ...sql,
    ...contract,
    find: 'o.xid >= pg_snapshot_xmax(seen) or o.xid = any (array(select pg_snapshot_xip(seen)))',
    replace: 'o.xid >= pg_snapshot_xmax(seen)',
    promise: 'An order of a long transaction is found',
    title: 'an order of a long transaction counts',
  },
  {
    file: 'lib/rules/rows.ts',
    ...contract,
    find: 'if (!isDoubtful(claims)) return claims',
    replace: 'if (claims) return claims',
    promise: 'Of claims that jsonb cannot hold, the others are shown',
    title: 'claims that jsonb cannot hold',
  },
  {
    file: 'lib/access/authenticator.ts',
    ...contract,
    find: 'isRefusal(permit) || !isRevoked(permit.claims)',
    replace: 'true',
    promise: 'A revoked token is refused',
    title: 'a revoked token is let in nowhere',
  },
  {
    file: 'lib/rules/containment.ts',
    test: 'test/contract/containment.test.ts',
    find: 'Number(exponent) - fraction.length + digits.length - significant.length',
    replace: 'Number(exponent) - fraction.length',
    promise: 'Numbers are compared by their value',
  },
  {
    file: 'lib/rules/writing.ts',
    ...contract,
    find: 'if (!isKnown) {',
    replace: "if (snapshot === '' && !isKnown) {",
    promise: 'A server whose row is gone writes everything anew',
    title: 'a server whose row is gone',
  },
  {
    file: 'lib/rules/writing.ts',
    test: 'test/unit/writing.test.ts',
    find: 'else if (left > 0) left -= await write(server)',
    replace: 'else if (changes.count > 0) await write(server)',
    promise: 'Connections are written once a second, however many come and go',
    title: 'whoever comes while a round writes',
  },
  {
    file: 'lib/rules/rows.ts',
    test: 'test/unit/rows.test.ts',
    find: '|\\\\ud[89ab][\\da-f]{2}\\\\ud[c-f][\\da-f]{2}/gi',
    replace: '/gi',
    promise: 'What jsonb can hold of claims is shown',
    title: 'claims are written as they stand',
  },
]
