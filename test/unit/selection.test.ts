import { expect, test } from 'bun:test'
import { contains, readJson } from '../../lib/rules/containment.ts'
import { createOrders } from '../../lib/rules/orders.ts'
import { createSelection } from '../../lib/rules/selection.ts'

test.each([
  ['{"a":1}', '{"a":1.0e0}', true],
  ['{"a":100}', '{"a":1e2}', true],
  ['{"a":12345678901234567890}', '{"a":12345678901234567891}', false],
  ['{"a":-0}', '{"a":0.00}', true],
  ['{"a":"1"}', '{"a":1}', false],
  ['{"a":[1,2,[3]]}', '{"a":[2]}', true],
  ['{"a":[1,2,[3]]}', '{"a":[[]]}', true],
  ['{"a":[]}', '{"a":{}}', false],
  ['{"a":{"b":1,"c":2}}', '{"a":{"c":2}}', true],
  ['{"a":null}', '{"a":null}', true],
  ['{}', '{"a":null}', false],
  ['{"toString":1}', '{"valueOf":1}', false],
  ['{"__proto__":{"a":1}}', '{"__proto__":{"a":1}}', true],
])('%s contains %s: %p', (outer, inner, expected) => {
  expect(contains(readJson(outer), readJson(inner))).toBe(expected)
})

test('claims without a plain value select too, and an empty object selects all', () => {
  const selection = createSelection<string>()
  selection.set('{"roles":["a"]}', 'nested')
  expect([selection.find('{"roles":["b","a"]}'), selection.find('{"sub":"x"}')]).toEqual(['nested', undefined])
  selection.set('{}', 'all')
  expect(selection.find('{"sub":"x"}')).toBe('all')
})

test('the longer of two revocations counts, and each is forgotten when it is over', () => {
  const orders = createOrders()
  const order = { claims: '{"sub":"anna"}', reason: 'Token revoked', age: 0 }
  orders.take(
    [
      { ...order, left: 10 },
      { ...order, left: 1 },
    ],
    0,
  )
  expect([orders.isRevoked('{"sub":"anna"}', 9999), orders.isRevoked('{"sub":"anna"}', 10_000)]).toEqual([true, false])
  expect([orders.inForce(9999), orders.inForce(10_000)]).toEqual([1, 0])
})

test('an order ends who was admitted before it and came later, and not who was admitted after it', () => {
  const orders = createOrders()
  orders.take([{ claims: '{"sub":"anna"}', reason: 'bye', age: 1, left: null }], 5000)
  const at = (admittedAt: number) => orders.reasonToEnd({ grant: { claims: '{"sub":"anna"}' }, admittedAt }, 5000)
  expect([at(3999), at(4001)]).toEqual(['bye', undefined])
})
