import { expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { engines } from '../../package.json' with { type: 'json' }

const root = resolve(import.meta.dir, '../..')
const read = (file: string): string => readFileSync(join(root, file), 'utf8')

/** The project's files that a file loads, those for types alone left out. */
const loads = (file: string): string[] =>
  [...read(file).matchAll(/^(?:import|export)(?! type)[^'"]*?'(\.[^']+\.ts)'/gm)].map(([, name = '']) =>
    resolve(root, file, '..', name).slice(root.length + 1),
  )

test('unit tests load nothing that builds the program or starts PostgreSQL', () => {
  const reached = new Set<string>()
  const visit = (file: string): void => {
    if (reached.has(file)) return
    reached.add(file)
    for (const name of loads(file)) visit(name)
  }
  for (const name of readdirSync(join(root, 'test/unit'))) visit(`test/unit/${name}`)
  for (const [, file = ''] of read('bunfig.toml').matchAll(/"\.\/(.+?\.ts)"/g)) visit(file)
  const starting = ['binary', 'program', 'setup', 'postgres'].map((name) => `test/support/${name}.ts`)
  expect(starting.filter((file) => reached.has(file))).toEqual([])
  // These are loaded, so that a pattern that sees no import is noticed.
  expect([...reached]).toEqual(expect.arrayContaining(['lib/channels/hub.ts', 'test/support/token.ts', 'test/support/ending.ts']))
})

test('one version of Node is pinned, and package.json allows it', () => {
  const pinned = read('.nvmrc').trim()
  expect(pinned).toMatch(/^\d+\.\d+\.\d+$/)
  expect(Bun.semver.satisfies(pinned, engines.node)).toBe(true)
  expect(read('Containerfile')).toContain(`FROM --platform=$BUILDPLATFORM node:${pinned}-`)
  for (const name of readdirSync(join(root, '.github/workflows'))) {
    const versions = [...read(`.github/workflows/${name}`).matchAll(/node-version(?:-file)?: ([^ }]+)/g)].map(
      ([, value]) => value,
    )
    expect(versions.length).toBeGreaterThan(0)
    expect(versions.filter((value) => value !== '.nvmrc')).toEqual([])
  }
})
