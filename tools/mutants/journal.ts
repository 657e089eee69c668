/** Owns the breaks of the journal. */
import type { Mutant } from './mutant.ts'

const folder = 'lib/broker/postgres/journal'
const schema = { file: `${folder}/schema.sql`, test: 'test/contract/journal-sql.test.ts' }
const property = { test: 'test/faults/journal/property.test.ts' }

export const journal: readonly Mutant[] = [
  {
    ...schema,
    ...property,
    find: 'from pg_snapshot_xip(previous.snapshot) as under_way(xid)',
    replace: "from pg_snapshot_xip('1:1:') as under_way(xid)",
    promise: 'A look finds the transactions that were under way at the one before',
  },
  {
    ...schema,
    ...property,
    find: 'select previous.number + 1, head, present',
    replace: 'select (select max(b.number) + 1 from pgws.batches b), head, present',
    promise: 'Of two looks that follow the same batch, one fails',
  },
  {
    file: `${folder}/sequencer.ts`,
    ...property,
    find: 'found.oldest > bound',
    replace: 'found.oldest > 0n',
    promise: 'A sequencer that falls asleep stays half awake for publishers that did not ring',
  },
  {
    file: `${folder}/recent.ts`,
    ...property,
    find: '(entries[middle]?.number ?? 0) > number',
    replace: '(entries[middle]?.number ?? 0) >= number',
    promise: 'A resume from memory begins behind the position',
  },
  {
    ...schema,
    ...property,
    find: 'm.xid = inside.xid and m.number > channel_after.after - inside.first + 1',
    replace: 'm.xid = inside.xid and m.number >= channel_after.after - inside.first + 1',
    promise: 'A resume from the tables begins behind the position',
  },
  {
    file: `${folder}/journal.ts`,
    ...property,
    find: 'const entries = found.filter((entry) => entry.number <= follower.head)',
    replace: 'const entries = found',
    promise: 'What the tables hold beyond what was received comes live alone',
  },
  {
    ...schema,
    find: 'if earlier is not null then',
    replace: 'if false then',
    promise: 'RESET ALL within a transaction fails no publish',
    title: 'survives RESET ALL',
  },
  {
    ...schema,
    find: "if current_setting('max_prepared_transactions') = '0' then",
    replace: 'if true then',
    promise: 'A transaction that published can be prepared',
    title: 'comes with a prepared transaction',
  },
  {
    ...schema,
    find: 'revoke all on all functions in schema pgws from public;',
    replace: '',
    promise: 'Nobody may publish or read who was not granted it',
    title: 'public has neither',
  },
  {
    ...schema,
    test: 'test/contract/journal-history.test.ts',
    find: 'create or replace function pgws.position() returns text\nlanguage plpgsql stable',
    replace: 'create or replace function pgws.position() returns text\nlanguage plpgsql volatile',
    promise: 'A position that is taken with a state in one statement is not ahead of that state',
    title: 'is that of the snapshot, not of the moment',
  },
  {
    ...schema,
    test: 'test/contract/journal-history.test.ts',
    find: 'if with_keys is not null then',
    replace: 'if false then',
    promise: 'Two transactions at once publish a key once',
    title: 'publishes once in two transactions at once',
  },
  {
    file: `${folder}/follower.ts`,
    test: 'test/faults/journal/failover.test.ts',
    find: 'else if (fork < head)',
    replace: 'else if (fork < 0)',
    promise: 'After a failover a server goes on where the histories part, and tells what is lost',
    title: 'after a failover',
  },
  {
    ...schema,
    test: 'test/contract/journal-retention.test.ts',
    find: 'perform pgws.must_keep(read_channels.after);',
    replace: '',
    promise: 'A reader in the middle of dropped history is told',
    title: 'drops what is older',
  },
  {
    ...schema,
    test: 'test/contract/journal-retention.test.ts',
    find: 'and not pg_visible_in_snapshot(m.xid, head.snapshot)',
    replace: 'and false',
    promise: 'What has no position yet is not dropped',
    title: 'waits for nothing',
  },
  {
    file: `${folder}/sequencer.ts`,
    test: 'test/faults/journal/takeover.test.ts',
    find: 'if (found.behind === true && behindAt === head)',
    replace: 'if (false)',
    promise: 'A sequencer that hangs is replaced',
    title: 'when it hangs with its session open',
  },
  {
    file: `${folder}/sequencer.ts`,
    test: 'test/faults/journal/takeover.test.ts',
    find: 'else await standIn(head)',
    replace: '',
    promise: 'Where a sequencer that hangs may not be ended, another looks in its place',
    title: 'when it hangs and may not be ended',
  },
]
