/** Owns the texts that follow from the table of variables: `--help`, `sample-env`, its plain form and the table of docs/configuration.md. Pure. */
import { variables } from './variables.ts'

const table = Object.values(variables)

const usage = `postgres-websockets VERSION
Connects websockets to PostgreSQL asynchronous notifications.

Usage: postgres-websockets [--env-file FILE] [--check | --ready | --install]
       postgres-websockets --print-sql | --help | --version

  --env-file FILE  read variables from FILE (KEY=value or export KEY="value"); those of the environment win
  --check          try the configuration, the database and the way of a notification, say what is wrong, and exit
  --ready          ask the admin port whether the server is ready, for health checks; exit 0 when it is
  --install        create or upgrade the journal's schema in the database, say what was done, and exit
  --print-sql      print the SQL that --install runs
  --help, -h       show this text
  --version, -v    show the version

All configuration comes from environment variables; an empty one counts as unset.
`

export function help(version: string): string {
  const entries = table.map(({ name, default: otherwise, meaning }) => `${name}  (${otherwise})\n${wrap(meaning, 92, '    ')}`)
  return `${usage.replace('VERSION', version)}\n${entries.join('\n\n')}\n`
}

/** @param form `shell` for `source`, `plain` for systemd and Docker. */
export function sampleEnv(form: 'shell' | 'plain'): string {
  const head =
    form === 'shell'
      ? 'Every variable of postgres-websockets. Start it with: source sample-env && postgres-websockets'
      : 'Every variable of postgres-websockets, in the form that systemd (EnvironmentFile=) and Docker (--env-file) read. Set the first two.'
  const entries = table.map(({ name, default: otherwise, example, meaning, ...more }) => {
    const isLeftOut = form === 'plain' && 'isForTrial' in more
    const value = 'sample' in more && !isLeftOut ? more.sample : undefined
    const assignment = form === 'shell' ? `export ${name}="${value ?? example}"` : `${name}=${value ?? example}`
    return `${wrap(`${meaning} (${otherwise})`, 98, '# ')}\n${value === undefined ? '# ' : ''}${assignment}`
  })
  return `# ${head}\n\n${entries.join('\n\n')}\n`
}

export function markdownTable(): string {
  const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll(/(^| )(\*[46]?|![46])(?=[ ,.])/g, '$1`$2`')
  const rows = table.map(({ name, default: otherwise, meaning }) => {
    const code = /^(required|unset)/.test(otherwise) ? otherwise : `\`${otherwise}\``
    return `| \`${name}\` | ${code} | ${cell(meaning)} |`
  })
  return ['| variable | default | meaning |', '| --- | --- | --- |', ...rows].join('\n')
}

/** Breaks a text into lines of at most `width` characters, each after `prefix`. */
function wrap(text: string, width: number, prefix: string): string {
  const lines = ['']
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? ''
    if (line !== '' && line.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`
  }
  return lines.map((line) => `${prefix}${line}`).join('\n')
}
