/**
 * Owns the site of the README and docs/: which pages it has, how they stand in its sidebar, and where their links lead. The Markdown
 * stays as GitHub shows it.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join, posix, resolve } from 'node:path'

const site = resolve(import.meta.dirname, '..')
const root = resolve(site, '../..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const { description } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

// Copied, for a page finds what it is built with in the folders above it.
const copies = join(site, 'pages')
rmSync(copies, { recursive: true, force: true })
cpSync(join(root, 'docs'), join(copies, 'docs'), { recursive: true })
cpSync(join(root, 'README.md'), join(copies, 'index.md'))
for (const name of ['CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md']) cpSync(join(root, name), join(copies, name))

/** Files that pages link and that are no pages. */
const linked = new Set<string>()

/** A name that every web server sends as text, and no publisher of a site leaves out as hidden. */
const published = (file: string): string => `files/${file.replace(/(^|\/)\./g, '$1')}.txt`

/** Where a link of a page leads on the site. */
function target(page: string, href: string): string {
  const [, path = '', anchor = ''] = /^([^#]*)(.*)$/.exec(href) ?? []
  if (path === '' || /^[a-z]+:/.test(path)) return href
  const file = posix.join(dirname(page), path)
  if (file === 'README.md') return `/${anchor}`
  if (existsSync(join(copies, file))) return href
  linked.add(file)
  return `/${published(file)}`
}

/** As much of a Markdown renderer as is used. */
interface Token {
  readonly type: string
  readonly children: readonly Token[] | null
  attrGet(name: string): string | null
  attrSet(name: string, value: string): void
}
interface Parsed {
  readonly tokens: readonly Token[]
  readonly env: { readonly relativePath: string }
}
interface Renderer {
  readonly core: { readonly ruler: { push(name: string, rule: (parsed: Parsed) => void): void } }
}

function leadLinks({ core }: Renderer): void {
  core.ruler.push('lead_links', ({ tokens, env }) => {
    for (const token of tokens.flatMap(({ children }) => children ?? []))
      if (token.type === 'link_open') token.attrSet('href', target(env.relativePath, token.attrGet('href') ?? ''))
  })
}

/** The anchors that GitHub makes, so that links to them hold in both places. */
const slugify = (heading: string): string =>
  heading
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}_ -]/gu, '')
    .replaceAll(' ', '-')

/** The README's table of pages, in its order. */
const listed = [...readme.matchAll(/^\| \[(.+?)\]\((docs\/.+?\.md)\) \|/gm)].map(([, text = '', page = '']) => ({
  text,
  link: `/${page.replace(/\.md$/, '')}`,
}))

export default {
  title: 'postgres-websockets',
  description,
  lang: 'en',
  srcDir: 'pages',
  outDir: '../../dist/site',
  ignoreDeadLinks: 'localhostLinks',
  markdown: { config: leadLinks, anchor: { slugify } },
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    sidebar: [
      { text: 'Overview', link: '/' },
      ...listed,
      { text: 'Changes', link: '/CHANGELOG' },
      { text: 'Contributing', link: '/CONTRIBUTING' },
      { text: 'Security', link: '/SECURITY' },
    ],
  },
  buildEnd({ outDir }: { readonly outDir: string }): void {
    for (const file of linked) {
      const copy = join(outDir, published(file))
      mkdirSync(dirname(copy), { recursive: true })
      cpSync(join(root, file), copy)
    }
  },
}
