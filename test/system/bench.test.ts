import { expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'

const root = resolve(import.meta.dir, '../..')

test(
  'the benchmark runs on all servers, whatever its figures',
  () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['bench/run.ts', '--quick'], { cwd: root, encoding: 'utf8' })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    const { results } = JSON.parse(readFileSync(resolve(root, 'dist/bench.json'), 'utf8'))
    for (const name of ['this server', 'ceiling', 'peer', 'on Deno'])
      expect(results.filter((row: { values: object }) => name in row.values).length).toBeGreaterThan(8)
    expect(stdout).toContain('| burst to 1,000 readers |')
  },
  { timeout: 90_000 },
)

test(
  'the benchmark of the journal runs, whatever its figures',
  () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['bench/run.ts', 'journal', '--quick'], {
      cwd: root,
      encoding: 'utf8',
    })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    const { results } = JSON.parse(readFileSync(resolve(root, 'dist/bench-journal.json'), 'utf8'))
    expect(results.length).toBeGreaterThan(8)
    expect(results.filter(({ value, beside }: Record<string, number>) => !(Number(value) > 0 && Number(beside) > 0))).toEqual([])
    expect(stdout).toContain('| 8 publishers |')
  },
  { timeout: 60_000 },
)

test(
  'the benchmark of several servers runs, whatever its figures',
  () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['bench/run.ts', 'scaling', '--quick'], {
      cwd: root,
      encoding: 'utf8',
    })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    const { counts, results } = JSON.parse(readFileSync(resolve(root, 'dist/bench-scaling.json'), 'utf8'))
    expect(results.length).toBeGreaterThan(40)
    expect(results.filter(({ values }: { values: unknown[] }) => values.length !== counts.length)).toEqual([])
    expect(stdout).toContain('| servers with the same positions and order | 1 | 2 | 3 |')
  },
  { timeout: 60_000 },
)
