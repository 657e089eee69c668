import { expect, test } from 'bun:test'
import { unknownVariables } from '../../lib/config/unknown.ts'

const known = ['PGWS_PORT', 'PGWS_HOST', 'PGWS_ADMIN_PORT', 'PGWS_DB_URI']

test.each([
  ['PGWS_PROT', 'PGWS_PORT'],
  ['PGWS_PORTS', 'PGWS_PORT'],
  ['PGWS_HST', 'PGWS_HOST'],
  ['PGWS_DB_URL', 'PGWS_DB_URI'],
  ['PGWS_ADMIN_PROT', 'PGWS_ADMIN_PORT'],
  ['PGWS_SOMETHING_ELSE', undefined],
  ['PGWS_XYZ', undefined],
])('%s is unknown, and %p may be meant', (name, nearest) => {
  expect(unknownVariables({ [name]: 'x' }, known)).toEqual([{ name, nearest }])
})

test('what is known, unset or not of the program is no unknown variable', () => {
  expect(unknownVariables({ PGWS_PORT: '1', PGWS_PROT: '', PGWS_HST: undefined, PORT: '1', PGHOST: 'h' }, known)).toBeEmpty()
})
