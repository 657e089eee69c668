/**
 * Owns `npm run test:mutants`, the proof that the tests see what they are there for: it breaks `lib/` in some hundred small ways, one
 * at a time, and each time one test file must fail. `tools/mutants/` holds the breaks, each with the promise that it breaks. The run
 * fails where a test stays green (write the test, or give up the promise), and where a break no longer applies, because its text
 * does not stand exactly once in its file (bring it up to date). Nothing is changed in the clone: each worker breaks a copy in a
 * temporary folder. `npm run test:mutants -- session` runs the breaks with that word in them, `--workers=4` so many at a time.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { Mutant } from './mutants/mutant.ts'
import { mutants } from './mutants/table.ts'

const root = resolve(import.meta.dir, '..')

/** Milliseconds for one test, and for all of a run. */
const TEST_LIMIT = 20_000
const RUN_LIMIT = 90_000

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  options: { workers: { type: 'string', default: '2' } },
  allowPositionals: true,
})

interface Run {
  /** Hung: a test's time passed. Broken: no test could run. */
  readonly outcome: 'green' | 'red' | 'hung' | 'broken'
  readonly seconds: number
  readonly output: string
}

const running = new Set<ChildProcess>()

/** A copy of the clone, as far as git knows it or would. Its temporary files can be reached by PostgreSQL's user. */
function copyTree(folder: string): string {
  const tree = join(folder, 'tree')
  const listed = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  })
  if (listed.status !== 0) throw new Error(`git ls-files failed: ${listed.stderr}${listed.error ?? ''}`)
  for (const name of listed.stdout.split('\0')) {
    if (name !== '' && existsSync(join(root, name))) cpSync(join(root, name), join(tree, name))
  }
  symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'))
  mkdirSync(join(folder, 'tmp'))
  for (const part of [folder, tree, join(folder, 'tmp')]) chmodSync(part, 0o755)
  return tree
}

/** Runs one test file, all of it or what is named like one of the titles. */
async function run(tree: string, test: string, titles: readonly string[]): Promise<Run> {
  const began = performance.now()
  const names = titles.length === 0 ? [] : ['-t', titles.map((title) => RegExp.escape(title)).join('|')]
  const args = ['test', `--timeout=${TEST_LIMIT}`, `./${test}`, ...names]
  const child = spawn(process.execPath, args, {
    cwd: tree,
    env: { FUZZ_SECONDS: '5', ...process.env, TMPDIR: join(tree, '../tmp'), NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  const timer = setTimeout(() => child.kill('SIGKILL'), RUN_LIMIT)
  const closed = new Promise((ended) => child.once('close', ended))
  const code = await new Promise((ended) => child.once('exit', ended))
  clearTimeout(timer)
  running.delete(child)
  killLeft(resolve(tree, '..'))
  // All that it wrote has come then.
  await closed
  return { outcome: judge(code, output), seconds: (performance.now() - began) / 1000, output }
}

function judge(code: unknown, output: string): Run['outcome'] {
  if (code === 0) return 'green'
  if (code === null || /timed out after \d+ms/.test(output)) return 'hung'
  const hasFailed = /^ *[1-9]\d* fail$/m.test(output) && !output.includes('the build failed')
  return hasFailed ? 'red' : 'broken'
}

/** Kills what a failed test left running: whatever names a worker's folder, as PostgreSQL, its pooler and the program do. */
function killLeft(folder: string): void {
  for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`${folder}/`)) process.kill(Number(pid), 'SIGKILL')
    } catch {
      // It ended meanwhile.
    }
  }
}

/** Breaks a file of the tree, runs the test, and mends the file. */
async function tryOut(
  tree: string,
  { file, find, replace, test, title, hangs }: Mutant,
): Promise<{ verdict: string; run?: Run }> {
  const path = join(tree, file)
  const source = readFileSync(path, 'utf8')
  if (source.split(find).length !== 2) return { verdict: 'NOT APPLICABLE' }
  writeFileSync(
    path,
    source.replace(find, () => replace),
  )
  const ran = await run(tree, test, title === undefined ? [] : [title])
  writeFileSync(path, source)
  if (ran.outcome === 'red' || (ran.outcome === 'hung' && hangs)) return { verdict: 'caught', run: ran }
  return { verdict: ran.outcome === 'green' ? 'SURVIVED' : ran.outcome.toUpperCase(), run: ran }
}

/** Does every piece of work once, so many at a time as there are trees. */
async function each<T>(
  trees: readonly string[],
  work: readonly T[],
  act: (tree: string, item: T) => Promise<void>,
): Promise<void> {
  const left = [...work]
  await Promise.all(
    trees.map(async (tree) => {
      for (let item = left.shift(); item !== undefined; item = left.shift()) await act(tree, item)
    }),
  )
}

/** The last lines of what a test says. */
const endOf = (output: string): string =>
  output
    .trimEnd()
    .split('\n')
    .slice(-30)
    .map((line) => line.slice(0, 300))
    .join('\n')

const isUnit = (test: string): boolean => test.startsWith('test/unit/')

async function main(folder: string): Promise<number> {
  const began = performance.now()
  const chosen = mutants
    .filter((mutant) => positionals.every((word) => JSON.stringify(mutant).toLowerCase().includes(word.toLowerCase())))
    // Short ones last, so that no worker is idle for long.
    .sort((one, other) => Number(isUnit(one.test)) - Number(isUnit(other.test)))
  const trees = Array.from({ length: Number(values.workers) }, (_, index) => copyTree(join(folder, String(index))))
  const failing = new Set<string>()
  const tests = Map.groupBy(chosen, ({ test }) => test)
  await each(trees, [...tests], async (tree, [test, using]) => {
    const titles = using.map(({ title }) => title)
    const ran = await run(tree, test, titles.includes(undefined) ? [] : titles.filter((title) => title !== undefined))
    if (ran.outcome === 'green') return
    failing.add(test)
    console.log(`${test} fails without any break (${ran.outcome}):\n${endOf(ran.output)}`)
  })
  let passed = 0
  await each(trees, chosen, async (tree, mutant) => {
    const { verdict, run } = failing.has(mutant.test) ? { verdict: 'NO BASELINE' } : await tryOut(tree, mutant)
    if (verdict === 'caught') passed++
    const seconds = (run?.seconds ?? 0).toFixed(1)
    const place =
      verdict === 'caught'
        ? ''
        : `\n    ${mutant.file}: ${mutant.find}\n    ${mutant.test}${mutant.title ? `: ${mutant.title}` : ''}`
    console.log(`${verdict.padEnd(14)} ${seconds.padStart(5)} s  ${mutant.promise}${place}`)
    if (run && (run.outcome === 'broken' || (run.outcome === 'hung' && verdict !== 'caught'))) console.log(endOf(run.output))
  })
  console.log(`${Math.round((performance.now() - began) / 1000)} s with ${trees.length} workers`)
  console.log(`${passed} passed, ${chosen.length - passed} failed`)
  return passed === chosen.length && passed > 0 ? 0 : 1
}

const folder = mkdtempSync(join(tmpdir(), 'pgws-mutants-'))
chmodSync(folder, 0o755)
const end = (code: number): never => {
  for (const child of running) child.kill('SIGKILL')
  killLeft(folder)
  rmSync(folder, { recursive: true, force: true })
  process.exit(code)
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => end(1))
main(folder).then(end, (error) => {
  console.error(error)
  end(1)
})
