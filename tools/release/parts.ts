/**
 * Owns what a release says about its parts: `parts.ts sbom` writes the parts list (CycloneDX), `parts.ts notices` the licences of what the binary holds.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'

const root = resolve(import.meta.dir, '../..')
const read = (path: string): string => readFileSync(resolve(root, path), 'utf8').trim()

interface About {
  readonly name: string
  readonly version: string
  readonly license: string
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
}

const about: About = JSON.parse(read('package.json'))
const bun = about.devDependencies.bun ?? ''

interface Part {
  readonly 'bom-ref': string
  name: string
  type: string
}

function sbom(): string {
  const args = ['sbom', '--sbom-format', 'cyclonedx', '--omit', 'dev', '--omit', 'optional']
  const made = spawnSync('npm', args, { cwd: root, encoding: 'utf8' })
  if (made.status !== 0) throw new Error(`npm sbom failed: ${made.stderr}`)
  const list: { metadata: { component: Part }; components: object[]; dependencies: { ref: string; dependsOn: string[] }[] } =
    JSON.parse(made.stdout)
  // npm names the product by its folder and takes it for a library.
  const product = list.metadata.component
  Object.assign(product, { name: about.name, type: 'application' })
  const ref = `bun@${bun}`
  list.components.push({
    'bom-ref': ref,
    type: 'platform',
    name: 'bun',
    version: bun,
    scope: 'required',
    description: 'The runtime, which is part of the binary',
    purl: `pkg:github/oven-sh/bun@bun-v${bun}`,
    licenses: [{ license: { id: 'MIT' } }],
  })
  list.dependencies.find((entry) => entry.ref === product['bom-ref'])?.dependsOn.push(ref)
  list.dependencies.push({ ref, dependsOn: [] })
  return JSON.stringify(list, null, 2)
}

function notices(): string {
  const packages = Object.keys(about.dependencies).map((name) => {
    const folder = `node_modules/${name}`
    const { version, license }: About = JSON.parse(read(`${folder}/package.json`))
    const file = readdirSync(resolve(root, folder)).find((entry) => /^(un)?licen[cs]e/i.test(entry))
    const text = file ? read(`${folder}/${file}`) : `Its licence by its own declaration: ${license}.`
    return `## ${name} ${version}\n\n${text}`
  })
  const runtime = `## Bun ${bun}

Bun is licensed under the MIT licence. It holds JavaScriptCore and parts of WebKit (LGPL-2), TinyCC (LGPL-2.1) and further libraries under
licences of their own, all of which are named at https://github.com/oven-sh/bun/blob/bun-v${bun}/LICENSE.md together with the source, and
how to link Bun with a changed JavaScriptCore. What is built of postgres-websockets with such a Bun is the same program: its
source is complete, and \`npm run build -- --compile-executable-path=BUN\` takes any.`
  // Every Debian and Ubuntu has these texts.
  const texts = ['LGPL-2', 'LGPL-2.1', 'Apache-2.0'].map((name) => {
    const path = `/usr/share/common-licenses/${name}`
    if (!existsSync(path)) throw new Error(`${path} is missing: a release is built on Debian or Ubuntu`)
    return `## ${name}\n\n${read(path)}`
  })
  return [`# What the binary of ${about.name} holds beside its own source`, ...packages, runtime, ...texts].join('\n\n')
}

const [what = ''] = process.argv.slice(2)
const writers: Readonly<Record<string, () => string>> = { sbom, notices }
const write = writers[what]
if (!write) throw new Error('usage: parts.ts sbom|notices')
console.log(write())
