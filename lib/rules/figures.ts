/** Owns the metrics of connections in the database. */

import type { Metrics } from '../metrics.ts'

export function describeConnections(
  { gauge }: Pick<Metrics, 'gauge'>,
  read: () => Readonly<Record<'rows' | 'statements' | 'ended' | 'revocations', number>>,
): void {
  const counter = (metric: string, help: string, value: () => number): void => gauge(metric, help, value, undefined, 'counter')
  counter('pgws_connection_rows_written_total', 'Connections written to the database, or removed there.', () => read().rows)
  counter(
    'pgws_connection_statements_total',
    'Statements with which connections were written and orders read.',
    () => read().statements,
  )
  counter('pgws_connections_ended_total', 'Connections ended because the database ordered it.', () => read().ended)
  gauge('pgws_revocations', 'Revocations of tokens that are in force.', () => read().revocations)
}
