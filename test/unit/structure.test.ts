import { expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

const root = resolve(import.meta.dir, '../..')
const filesIn = (folder: string): string[] =>
  readdirSync(resolve(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => `${folder}/${name}`)
const files = ['main.ts', ...filesIn('lib')]
const source = (file: string): string => readFileSync(resolve(root, file), 'utf8')
const code = (file: string): string => source(file).replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')

/** What a file imports: the project's files by their path, others by their name. */
const imports = (file: string): string[] =>
  [...code(file).matchAll(/(?:from |import |import\()'([^']+)'/g)].map(([, name = '']) =>
    name.startsWith('.') ? resolve(root, file, '..', name).slice(root.length + 1) : name,
  )

test('each outside library and the runtime are touched by one file', () => {
  const owners = {
    '#runtime': ['main.ts'],
    hono: ['lib/doors/admin.ts', 'lib/doors/routes.ts'],
    jose: ['lib/access/token.ts'],
    postgres: ['lib/database/protocol.ts'],
    'node:process': ['lib/hangup.ts', 'main.ts'],
    'node:fs': [
      'lib/config/watch.ts',
      'lib/doctor.ts',
      'lib/doors/static.ts',
      'lib/runtime/bun.ts',
      'lib/runtime/closing.ts',
      'lib/runtime/deno.ts',
      'lib/runtime/descriptors.ts',
      'main.ts',
    ],
    'node:http': ['lib/runtime/deno.ts', 'lib/runtime/node-http.ts', 'lib/runtime/ws.ts'],
    ws: ['lib/runtime/ws.ts'],
  }
  for (const [library, owner] of Object.entries(owners)) {
    const touching = files.filter((file) => imports(file).some((name) => name === library || name.startsWith(`${library}/`)))
    expect({ library, touching: touching.sort() }).toEqual({ library, touching: owner })
  }
  const known = new Set(
    files
      .flatMap(imports)
      .filter((name) => !name.startsWith('lib/') && !name.startsWith('node:'))
      .map((name) => name.split('/')[0]),
  )
  expect([...known].sort()).toEqual(['#runtime', 'hono', 'jose', 'package.json', 'postgres', 'ws'])
  // The program asks for a runtime, and package.json says which that is.
  const naming = files.filter((file) => /\b(Bun|Deno)\s*\.|['"/](bun|deno)(\.ts)?['":]/.test(code(file)))
  expect(naming).toEqual(['lib/runtime/bun.ts', 'lib/runtime/deno.ts'])
  expect(files.filter((file) => /\bprocess\s*\./.test(code(file)))).toEqual(['main.ts', 'lib/hangup.ts'])
})

/** From the lowest up. What stands on one floor does not import each other; `lib` is the files in it that everyone may use. */
const floors: readonly (readonly string[])[] = [
  ['lib'],
  ['lib/access', 'lib/database', 'lib/runtime'],
  ['lib/config'],
  ['lib/channels'],
  ['lib/broker', 'lib/doors', 'lib/rules'],
  ['lib/doctor.ts', 'lib/server.ts'],
  ['main.ts'],
]

test('folders stand on seven floors, and import only from the floors below', () => {
  const partOf = (file: string): string =>
    floors.flat().includes(file) ? file : (/^lib\/[^/]+(?=\/)/.exec(file)?.[0] ?? dirname(file))
  const floorOf = (file: string): number => floors.findIndex((parts) => parts.includes(partOf(file)))
  expect(files.filter((file) => floorOf(file) < 0)).toEqual([])
  const arrows = files.flatMap((file) => imports(file).map((name) => [file, name] as const))
  const upward = arrows
    .filter(([file, name]) => name.startsWith('lib/') && partOf(file) !== partOf(name) && floorOf(file) <= floorOf(name))
    .map((arrow) => arrow.join(' → '))
  expect(upward).toEqual([])
})

test('each function, class and constant that a file exports is imported by another', () => {
  const importedBy = (file: string): string[] =>
    [...code(file).matchAll(/\{([^{}]*)\} from '(\.[^']+)'/g)].flatMap(([, names = '', from = '']) =>
      names.split(',').map((name) => `${resolve(root, file, '..', from)} ${name.trim().replace(/ as .*/, '')}`),
    )
  const imported = new Set([...files, ...['bench', 'test', 'tools'].flatMap(filesIn)].flatMap(importedBy))
  const exported = files.flatMap((file) =>
    [...code(file).matchAll(/^export (?:async )?(?:const|function\*?|class) (\w+)/gm)].map(([, name]) => `${file} ${name}`),
  )
  // Deno takes its runtime by its name in package.json.
  expect(exported.filter((name) => !imported.has(resolve(root, name)))).toEqual(['lib/runtime/deno.ts runtime'])
})

test('arrows between files run downward, without circles', () => {
  const depth = new Map<string, number>()
  const visit = (file: string, path: readonly string[]): number => {
    if (path.includes(file)) throw new Error(`circle: ${[...path, file].join(' → ')}`)
    const known = depth.get(file)
    if (known !== undefined) return known
    const below = imports(file).filter((name) => name.startsWith('lib/'))
    const found = Math.max(0, ...below.map((name) => visit(name, [...path, file]) + 1))
    depth.set(file, found)
    return found
  }
  for (const file of files) visit(file, [])
  expect(Math.max(...depth.values())).toBe(depth.get('main.ts') ?? 0)
})

test('the pure files do no input or output and do not look at the clock', () => {
  const pure = [
    'access/grant',
    'channels/envelope',
    'channels/json',
    'config/config',
    'config/env-file',
    'config/help',
    'config/networks',
    'config/values',
    'config/variables',
    'database/connection-string',
    'database/conninfo',
    'database/password-file',
    'doors/client-address',
    'fault',
    'refusal',
    'shown',
  ]
  for (const name of pure) {
    const file = `lib/${name}.ts`
    expect(imports(file).filter((other) => other.startsWith('node:') && other !== 'node:crypto')).toEqual([])
    expect({ file, clock: /Date\.now|performance|setTimeout|setInterval|fetch\(|console/.test(code(file)) }).toEqual({
      file,
      clock: false,
    })
  }
})

test('every file says at its top what it owns', () => {
  for (const file of files)
    expect({ file, first: source(file).slice(0, 200) }).toMatchObject({ first: expect.stringMatching(/^\/\*\*[\s*]*Owns /) })
})

test('no file is longer than 250 lines, and no function than 120', () => {
  // The variables are a table.
  const long = files.filter((file) => file !== 'lib/config/variables.ts' && source(file).trimEnd().split('\n').length > 250)
  const functions = files.flatMap((file) =>
    [...source(file).matchAll(/^(?:export )?(?:async )?function\*? (\w+)[\s\S]*?^\}$/gm)].map(([text, name]) => ({
      name: `${file} ${name}`,
      lines: text.split('\n').length,
    })),
  )
  expect({ long, functions: functions.filter(({ lines }) => lines > 120) }).toEqual({ long: [], functions: [] })
})
