import { expect, test } from 'bun:test'
import { createLog } from '../../lib/log.ts'

/** The line of an event with one field. */
function lineOf(format: 'text' | 'json', value: string): string {
  let line = ''
  createLog({ format, write: (written) => (line = written) }).info('event', { value })
  return line
}

test.each([
  ['a control sequence of 8 bits', '\u009b31m', '\\u009b31m'],
  ['a next line', '\u0085', '\\u0085'],
  ['a line separator', '\u2028', '\\u2028'],
  ['a paragraph separator', '\u2029', '\\u2029'],
  ['an override of the direction', '\u202e', '\\u202e'],
  ['a mark of no width', '\u200b', '\\u200b'],
  ['a delete', '\x7f', '\\u007f'],
  ['an escape', '\x1b[2J', '\\u001b[2J'],
  ['a tag outside the first plane', '\u{e0041}', '\\udb40\\udc41'],
  ['half of a pair', '\ud800', '\\ud800'],
])('%s is escaped in both formats', (_, raw, escaped) => {
  const json = lineOf('json', `a${raw}b`)
  expect(json).toBe(`{"level":"info","event":"event","value":"a${escaped}b"}`)
  expect(JSON.parse(json).value).toBe(`a${raw}b`)
  expect(lineOf('text', `a${raw}b`)).toBe(`info: event value="a${escaped}b"`)
})

test.each([['Grüße'], ['чат'], ['部屋'], ['café'], ['🦄'], ['हिन्दी']])('%s stays readable in both formats', (name) => {
  expect(lineOf('text', name)).toBe(`info: event value=${name}`)
  expect(lineOf('text', `${name} ${name}`)).toBe(`info: event value="${name} ${name}"`)
  expect(lineOf('json', name)).toContain(name)
})
