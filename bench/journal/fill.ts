/** Owns a journal that is full from the start: messages of many channels, ten to a transaction and a hundred transactions to a batch. */
import type postgres from 'postgres'

export async function fill(sql: postgres.Sql, messages: number, channels: number): Promise<void> {
  // Behind what is there. The ids are of the past, so that a look finds nothing of it.
  const [before] =
    await sql`select number::int8 as number, last::int8 as last, slot, next_slot from pgws.batches order by number desc limit 1`
  const last = Number(before?.last)
  const number = Number(before?.number)
  const transactions = messages / 10
  // Ids beyond those in use are taken ahead of this cluster's own: nothing runs meanwhile.
  await sql.unsafe(`
    insert into pgws.messages (cluster, xid, published_at, number, slot, has_key, channel, payload)
    select pgws.cluster(), (1000000000 + n / 10)::text::xid8, clock_timestamp(), 1 + n % 10, ${before?.next_slot}, false,
      'channel ' || (hashint4(n) & 2147483647) % ${channels}, repeat('x', 100)
    from generate_series(0, ${messages - 1}) as n;
    insert into pgws.transactions (first, xid, count, slot)
    select ${last} + 1 + 10 * n::bigint, (1000000000 + n)::text::xid8, 10, ${before?.next_slot}
    from generate_series(0, ${transactions - 1}) as n;
    insert into pgws.batches (number, last, snapshot, taken_at, slot, next_slot)
    select ${number} + 1 + n, ${last} + 1000 * (n + 1), format('%s:%1$s:', 1000000000 + 100 * (n + 1))::pg_snapshot, clock_timestamp(),
      ${before?.next_slot}, ${before?.next_slot}
    from generate_series(0, ${Math.ceil(transactions / 100) - 1}) as n`)
}
