/** Owns what is written from the tables of variables and refusals: `npm run docs` brings the files up to date, a test holds them to it. */
import { readFileSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { markdownTable, sampleEnv } from '../lib/config/help.ts'
import { refusals } from '../lib/refusal.ts'

const at = (name: string): string => resolve(import.meta.dir, '..', name)

const read = (name: string): string => readFileSync(at(name), 'utf8')

/** A text with what stands between two marks replaced. */
function between(text: string, mark: string, replacement: string): string {
  const parts = text.split(new RegExp(`(<!-- ${mark} -->\n)[\\s\\S]*?(<!-- /${mark} -->)`))
  if (parts.length !== 4) throw new Error(`the mark ${mark} must stand once`)
  return `${parts[0]}${parts[1]}${replacement}\n${parts[2]}${parts[3]}`
}

/** The table of those refusals that answer requests, or of those that end connections. */
function refusalTable(member: 'status' | 'close', heading: string): string {
  const entries = Object.entries(refusals).flatMap(([code, entry]) =>
    member in entry ? [{ code, number: Number(Object.entries(entry).find(([name]) => name === member)?.[1]), ...entry }] : [],
  )
  const rows = entries
    .toSorted((one, other) => one.number - other.number)
    .map(({ code, number, reason, again }) => `| ${number} | \`${code}\` | ${reason} | ${again} |`)
  return [`| ${heading} | name | reason | worth coming again |`, '| --- | --- | --- | --- |', ...rows].join('\n')
}

/** Those that answer commands. */
function commandTable(): string {
  const rows = Object.entries(refusals).flatMap(([code, entry]) =>
    'command' in entry ? [`| \`${code}\` | ${entry.reason} | ${entry.again} |`] : [],
  )
  return ['| code | reason | worth trying again |', '| --- | --- | --- |', ...rows].join('\n')
}

function protocol(): string {
  const codes = between(read('docs/protocol.md'), 'codes', commandTable())
  const answers = between(codes, 'answers', refusalTable('status', 'status'))
  return between(answers, 'close codes', refusalTable('close', 'code'))
}

/** Each written file's name, with the text that belongs there. */
export const documents: Readonly<Record<string, () => string>> = {
  'sample-env': () => sampleEnv('shell'),
  'deploy/postgres-websockets.env': () => sampleEnv('plain'),
  'docs/configuration.md': () => between(read('docs/configuration.md'), 'variables', markdownTable()),
  'docs/protocol.md': protocol,
}

if (import.meta.main) for (const [name, text] of Object.entries(documents)) writeFileSync(at(name), text())
