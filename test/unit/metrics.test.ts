import { expect, test } from 'bun:test'
import { createMetrics } from '../../lib/metrics.ts'

test('a bucket counts all that is no more than its bound, and the last counts all', () => {
  const metrics = createMetrics()
  metrics.batches.observe(1)
  metrics.batches.observe(2)
  metrics.batches.observe(3, 2)
  metrics.batches.observe(5000)
  const lines = metrics.render().split('\n')
  const bucket = (bound: string) =>
    lines.find((line) => line.startsWith(`pgws_batch_messages_bucket{le="${bound}"}`))?.split(' ')[1]
  expect(['1', '2', '5', '1000', '+Inf'].map(bucket)).toEqual(['1', '2', '4', '4', '5'])
  expect(lines).toContain('pgws_batch_messages_sum 5009')
  expect(lines).toContain('pgws_batch_messages_count 5')
})

test('a counter counts by its label, whatever that holds', () => {
  const metrics = createMetrics()
  for (const reason of ['a"b', 'back\\slash', 'a"b']) metrics.refused.add(reason)
  expect(metrics.render()).toContain('pgws_upgrades_refused_total{reason="a\\"b"} 2\n')
  expect(metrics.render()).toContain('pgws_upgrades_refused_total{reason="back\\\\slash"} 1\n')
})

test('a gauge is read when it is asked', () => {
  const metrics = createMetrics()
  let value = 1
  metrics.gauge('one', 'What it is.', () => value)
  metrics.gauge('many', 'What they are.', () => ({ r: value, w: 0 }), 'mode')
  value = 7
  expect(metrics.render()).toContain('# HELP one What it is.\n# TYPE one gauge\none 7\n')
  expect(metrics.render()).toContain('many{mode="r"} 7\nmany{mode="w"} 0\n')
})
