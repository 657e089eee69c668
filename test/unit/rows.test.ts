/** Clients as rows of the database: which claims it can hold. */
import { expect, test } from 'bun:test'
import { rowOf } from '../../lib/rules/rows.ts'
import { client } from '../support/registered.ts'

/** The claims that are written, as a text. */
const claimsOf = (claims: string): string => JSON.parse(rowOf(client('a', claims), 0)).claims

test('claims are written as they stand where jsonb can hold them', () => {
  for (const claims of [
    '{"name":"anna","size":1e999}',
    // As PyJWT writes what is not ASCII.
    String.raw`{"name":"\ud83d\ude00 \uD83D\uDE00"}`,
    String.raw`{"path":"C:\\u0000\\ud83d"}`,
  ])
    expect(claimsOf(claims)).toBe(claims)
})

test('a claim that jsonb may refuse is left out, and the others are written', () => {
  for (const value of [
    String.raw`"\u0000"`,
    String.raw`"\\\u0000"`,
    String.raw`"\ud83d"`,
    String.raw`"\ude00\ud83d"`,
    String.raw`"\ud83d\ud83d\ude00"`,
    String.raw`["\ud83dx\ude00"]`,
    '1e999999',
    '9'.repeat(2000),
  ])
    expect(claimsOf(`{"odd":${value},"sub":"anna"}`)).toBe('{"sub":"anna"}')
})
