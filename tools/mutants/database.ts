/** Owns the breaks of the way to PostgreSQL. */
import type { Mutant } from './mutant.ts'

const transport = { file: 'lib/database/transport.ts', test: 'test/unit/transport.test.ts' }
const opening = { file: 'lib/database/opening.ts', test: 'test/contract/database.test.ts' }

export const database: readonly Mutant[] = [
  {
    ...opening,
    find: "if (isReplica) throw new DatabaseError('is a replica, which takes",
    replace: "if (target === 'standby') throw new DatabaseError('is a replica, which takes",
    promise: 'The sending side, too, finds the primary behind a replica',
    test: 'test/faults/failover.test.ts',
    title: 'where a replica comes first',
  },
  {
    ...opening,
    find: "to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')",
    replace: 'backend_start::text',
    promise: 'A session that is left behind is found and ended, whatever DateStyle its role has',
    test: 'test/faults/roles.test.ts',
    title: 'is found again by its start',
  },
  {
    ...opening,
    file: 'lib/database/protocol.ts',
    find: ';rollback`',
    replace: '`',
    promise: 'What is tried for a channel is undone',
    test: 'test/faults/database-channels.test.ts',
    title: 'what is tried for a channel',
  },
  {
    ...transport,
    find: 'if (answer.length !== 1)',
    replace: 'if (answer.length === 0)',
    promise: 'Text that was slipped in before TLS is taken for nobody (CVE-2021-23222)',
    title: 'text that comes before TLS',
  },
  {
    ...transport,
    find: "if (mode === 'prefer') return plain",
    replace: 'return plain',
    promise: 'sslmode=require never speaks to a server without TLS',
    title: 'a server without TLS',
  },
  {
    ...transport,
    find: "rejectUnauthorized: mode.startsWith('verify')",
    replace: 'rejectUnauthorized: false',
    promise: 'sslmode=verify-ca checks the chain',
    test: 'test/contract/database.test.ts',
    title: 'verify-ca and verify-full check',
  },
  {
    ...transport,
    find: "...(mode === 'verify-full' ? {} : {",
    replace: "...(mode === 'disable' ? {} : {",
    promise: 'sslmode=verify-full checks the name',
    test: 'test/contract/database.test.ts',
    title: 'verify-ca and verify-full check',
  },
  {
    ...opening,
    find: "if (target === 'standby' && !isReplica) return 'a primary'",
    replace: '',
    promise: 'target_session_attrs chooses servers as libpq does',
    title: 'are chosen by target_session_attrs',
  },
  {
    ...opening,
    file: 'lib/database/database.ts',
    find: "tls.mode === 'prefer') return [true, false]",
    replace: "tls.mode === 'prefer') return [false, true]",
    promise: 'sslmode=prefer encrypts where TLS is to be had',
    title: 'defaults to prefer',
  },
]
