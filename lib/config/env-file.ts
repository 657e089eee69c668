/** Owns the two forms of an environment file: a shell's `export KEY="value"` and the plain `KEY=value` of systemd and Docker. Pure. */

import { Fault } from '../fault.ts'

/**
 * Reads variables. A value in single quotes is taken as it is. In double quotes, a backslash escapes `"`, `\`, `$` and a backtick. Without
 * quotes, the value ends with its line. Nothing is expanded.
 *
 * @throws Fault where the file has neither form. It names the line's number and not its text, which may hold a secret.
 */
export function parseEnvFile(text: string): Record<string, string> {
  const variables: Record<string, string> = {}
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (/^\s*(#.*|;.*)?$/.test(line)) continue
    const [, name, value] = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*?)\s*$/.exec(line) ?? []
    if (name === undefined || value === undefined) throw new Fault(`line ${index + 1} is not KEY=value, a comment or empty`)
    variables[name] = unquote(value, index + 1)
  }
  return variables
}

function unquote(value: string, line: number): string {
  const single = /^'([^']*)'(\s+#.*)?$/.exec(value)
  if (single) return single[1] ?? ''
  const double = /^"((?:[^"\\]|\\.)*)"(\s+#.*)?$/.exec(value)
  if (double) return (double[1] ?? '').replaceAll(/\\(["\\$`])/g, '$1')
  if (/^['"]/.test(value)) throw new Fault(`line ${line} has a quote that does not end with the value`)
  return value
}
