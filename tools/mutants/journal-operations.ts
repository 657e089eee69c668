/** Owns the breaks of what whoever runs the journal relies on: checks, metrics and readiness. */
import type { Mutant } from './mutant.ts'

const folder = 'lib/broker/postgres/journal'
const operations = { test: 'test/contract/journal-operations.test.ts' }
const servers = { test: 'test/faults/journal-servers.test.ts' }

export const journalOperations: readonly Mutant[] = [
  {
    file: `${folder}/inspection.ts`,
    ...operations,
    find: "not has_function_privilege(p.oid, 'execute')",
    replace: 'false',
    promise: 'A role that may not do what the server needs is a fault at the start',
    title: 'name what the role may not do',
  },
  {
    file: `${folder}/inspection.ts`,
    ...operations,
    find: 'row?.fits === true ? undefined',
    replace: 'row !== undefined ? undefined',
    promise: 'A retention below 10 seconds is a fault at the start',
    title: 'refuse to keep messages for',
  },
  {
    file: 'lib/broker/postgres/broker.ts',
    ...operations,
    find: 'check.isProven && journal?.isReading !== false',
    replace: 'check.isProven',
    promise: '/ready is 503 while the journal cannot be read',
    title: '/ready says 503 while the journal cannot be read',
  },
  {
    file: 'lib/database/schema/journal.sql',
    ...operations,
    find: 'from pg_snapshot_xip(head.snapshot) as under_way(xid) join pgws.messages m on m.xid = under_way.xid\n        where m.cluster = pgws.cluster()\n        limit 1',
    replace: 'from pgws.messages m where false',
    promise: 'The lag tells of a long transaction that was committed and not read',
    title: 'tell of what is committed and not read',
  },
  {
    file: `${folder}/journal.ts`,
    ...operations,
    find: "resumes[isAtHand(found) ? 'memory' : 'tables']++",
    replace: 'resumes.memory++',
    promise: 'Readers that resume are counted by where they found what they came for',
    title: 'tell where the journal stands',
  },
  {
    file: 'lib/channels/reading.ts',
    ...operations,
    find: 'metrics.delivered.add(readers)',
    replace: '',
    promise: 'Messages of history count as delivered',
    title: 'tell where the journal stands',
  },
  {
    file: `${folder}/journal.ts`,
    ...servers,
    find: 'const isAtHand = (number: number): boolean => number >= follower.pages.recent.since',
    replace: 'const isAtHand = (number: number): boolean => number > follower.pages.head',
    promise: 'Clients that come back at once with a recent position cost no query',
    title: '2,000 clients that come back',
  },
  {
    file: `${folder}/positions.ts`,
    ...servers,
    find: 'epochs.slice(index + 1).some(({ began }) => began <= number)',
    replace: 'epochs.slice(index + 1).some(({ began }) => began < 0)',
    promise: 'A position beyond a fork is lost, and told',
    title: 'after a failover positions up to the fork',
  },
  {
    file: 'lib/channels/session.ts',
    ...servers,
    find: 'readable(session).filter((channel) => !options.isKept(channel))',
    replace: 'readable(session)',
    promise: 'Readers of channels of the journal are told of no outage',
    title: 'restarts of PostgreSQL, in each way',
  },
  {
    file: 'tools/start.ts',
    find: "PGWS_JOURNAL: 'True'",
    replace: "PGWS_JOURNAL: 'False'",
    promise: 'npm start has the journal',
    test: 'test/contract/start.test.ts',
    title: 'npm start serves the page',
    hangs: true,
  },
]
