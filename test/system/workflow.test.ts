import { expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { YAML } from 'bun'
import { version } from '../../package.json' with { type: 'json' }

interface Step {
  readonly name?: string
  readonly uses?: string
  readonly run?: string
  readonly with?: Readonly<Record<string, unknown>>
}
const root = resolve(import.meta.dir, '../..')
const text = readFileSync(join(root, '.github/workflows/release.yaml'), 'utf8')
// The file is the project's own; what it lacks fails the tests below.
const { jobs } = YAML.parse(text) as {
  jobs: Record<'tag' | 'test' | 'release' | 'site', { needs?: string; steps: readonly Step[] }>
}
const step = (job: keyof typeof jobs, text: string): Step =>
  jobs[job].steps.find(({ name, uses }) => `${name ?? ''}${uses ?? ''}`.includes(text)) ?? {}

/** Runs a step's commands in a folder with a version and a changelog. */
function passes({ run = 'exit 9' }: Step, changelog: string, env: Readonly<Record<string, string>>): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'pgws-workflow-'))
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ version }))
  writeFileSync(join(folder, 'CHANGELOG.md'), changelog)
  const { status } = spawnSync('bash', ['-e', '-c', run], { cwd: folder, env: { PATH: process.env.PATH, ...env } })
  rmSync(folder, { recursive: true })
  return status === 0
}

test('the tag, the changelog and the registry are looked at before any test runs, and nothing is released before all have passed', () => {
  expect(jobs.tag.needs).toBeUndefined()
  expect(jobs.test.needs).toBe('tag')
  expect(jobs.release.needs).toBe('test')
  const tag = step('tag', 'The tag is the version')
  expect(passes(tag, '', { GITHUB_REF_NAME: `v${version}` })).toBe(true)
  expect(passes(tag, '', { GITHUB_REF_NAME: 'v0.0.1' })).toBe(false)
  const entry = step('tag', 'The changelog has an entry')
  const env = { GITHUB_REF_NAME: `v${version}` }
  expect(passes(entry, `# Changes\n\n## ${version}\n`, env)).toBe(true)
  expect(passes(entry, `# Changes\n\n## Unreleased\n\n## ${version}\n`, env)).toBe(false)
  expect(passes(entry, '# Changes\n\n## 0.0.1\n', env)).toBe(false)
  const registry = step('tag', 'The registry is known')
  expect(passes(registry, '', { REGISTRY: 'registry.example.org' })).toBe(true)
  expect(passes(registry, '', { REGISTRY: '' })).toBe(false)
})

test('the image is for both processors, with its provenance, and the binaries that this machine cannot run are run before', () => {
  const names = jobs.release.steps.map(({ name, uses, run }) => name ?? uses?.replace(/@.*/, '') ?? run)
  const order = [
    'The binaries for musl and for arm64 run and pass their check',
    'docker/build-push-action',
    'actions/attest-build-provenance',
  ]
  expect(names.filter((name) => order.includes(name ?? ''))).toEqual(order)
  expect(step('release', 'docker/build-push-action').with).toMatchObject({
    platforms: 'linux/amd64,linux/arm64',
    push: true,
    provenance: 'mode=max',
  })
  const commands = step('release', 'The binaries for musl').run ?? ''
  for (const kind of ['linux-amd64-musl', 'linux-arm64'])
    expect(commands).toMatch(new RegExp(`check ${kind} .*--version.*--check`))
  expect(spawnSync('bash', ['-n', '-c', commands]).status).toBe(0)
})

test('the site is published below the path that the forge gives it, of what is released, by actions of one version', () => {
  expect(jobs.site.needs).toBe('release')
  const names = jobs.site.steps.map(({ uses, run }) => uses?.replace(/@.*/, '') ?? run)
  expect(names.slice(2)).toEqual([
    'actions/configure-pages',
    'npm run docs:site -- --base "$BASE/"',
    'actions/upload-pages-artifact',
    'actions/deploy-pages',
  ])
  expect(step('site', 'upload-pages-artifact').with).toEqual({ path: 'dist/site' })
  for (const { uses = '@v0.0.0' } of Object.values(jobs).flatMap(({ steps }) => steps)) expect(uses).toMatch(/@v\d+\.\d+\.\d+$/)
})
