import { expect, test } from 'bun:test'
import { shown, shownChannels, shownPath } from '../../lib/shown.ts'
import { token } from '../support/token.ts'

test('a token is not shown, whole or in part, encoded or with something beside it', async () => {
  const jwt = await token({ mode: 'r' })
  const [header = '', payload = '', signature = ''] = jwt.split('.')
  const spaced = Buffer.from('{ "alg": "HS256" }').toString('base64url')
  for (const word of [
    jwt,
    `Bearer ${jwt}`,
    `x${jwt}`,
    `${jwt}%`,
    jwt.replaceAll('.', '%2E'),
    jwt.replace('e', '%65').replaceAll('.', '%2E'),
    header,
    `${header}.${payload}`,
    `${payload}.${signature}`,
    `${spaced}.${payload}.${signature}`,
  ])
    expect({ word, shown: shown(word) }).toEqual({ word, shown: '[token]' })
})

test.each(['chat', 'orders.eu.west', 'org.example.rooms', 'survey-results-of-the-year', 'rooms/42', '100%', 'grün', ''])(
  'the channel %p is shown as it is',
  (name) => expect(shown(name)).toBe(name),
)

test('what is long is cut', () => {
  expect(shown('a'.repeat(101))).toBe(`${'a'.repeat(100)}…`)
  expect(shownChannels(Array.from({ length: 11 }, (_, index) => `c${index}`))).toBe('c0,c1,c2,c3,c4,c5,c6,c7,c8,c9,… (11)')
  expect(shownPath('/a'.repeat(1000), undefined)).toBe(`${'/a'.repeat(50)}…`)
})

test('a path is shown without what stands in the place of the token', () => {
  expect(shownPath('//chat//secret/', 'secret')).toBe('//chat//[token]/')
  expect(shownPath('/', undefined)).toBe('/')
})

test('what is as long as a request may be is looked at in no time', () => {
  const began = performance.now()
  for (const word of [
    'a'.repeat(16_384),
    'a-'.repeat(8192),
    `${'a'.repeat(20)}.`.repeat(780),
    'ey'.repeat(8192),
    'e'.repeat(16_384),
  ])
    shown(word)
  expect(performance.now() - began).toBeLessThan(100)
})
