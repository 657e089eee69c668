/**
 * Owns the blocks of code in the documentation. The fence of each says who runs it: `run=NAME` is the test file of that name, `skip=REASON` is nobody.
 * Markdown shows neither.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

export interface Block {
  readonly file: string
  readonly language: string
  /** What stands behind the language. */
  readonly mark: string
  readonly code: string
}

const root = resolve(import.meta.dir, '../..')

/** The README and every page. */
export const pages: readonly string[] = [
  'README.md',
  ...readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

export const blocks: readonly Block[] = pages.flatMap((file) =>
  [...readFileSync(join(root, file), 'utf8').matchAll(/^ *```(\w+) ?(.*)\n([\s\S]*?)^ *```$/gm)].map(
    ([, language = '', mark = '', code = '']) => ({ file, language, mark, code }),
  ),
)

/** What a test file runs: each block that is marked for it. */
export function blocksFor(name: string) {
  const marked = blocks.filter(({ mark }) => mark === `run=${name}`)
  const used = new Set<Block>()
  return {
    /** The one block of a language that holds a text, in one file where it is given. */
    block(language: string, text: string, file?: string): string {
      const found = marked.filter(
        (one) => one.language === language && one.code.includes(text) && (file === undefined || one.file === file),
      )
      const [only] = found
      if (only === undefined || found.length > 1) throw new Error(`${found.length} ${language} blocks for ${name} hold ${text}`)
      used.add(only)
      return only.code
    },
    /** Those of a language, in their order. */
    all(language: string): string[] {
      const found = marked.filter((one) => one.language === language)
      for (const one of found) used.add(one)
      return found.map(({ code }) => code)
    },
    /** Those that were not asked for. */
    left: () => marked.filter((one) => !used.has(one)).map(({ file, code }) => `${file}: ${code}`),
  }
}
