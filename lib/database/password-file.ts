/** Owns how libpq's password file is read. Pure. */

/** The password of the first line that matches; `*` matches anything, and `\` escapes the next character (manual, "The Password File"). */
export function passwordFor(
  lines: readonly string[],
  host: string,
  port: number,
  database: string,
  user: string,
): string | undefined {
  for (const line of lines) {
    if (line.startsWith('#')) continue
    const fields = line.match(/(?:[^:\\]|\\.)+|(?<=:)(?=:)/gs)?.map((field) => field.replaceAll(/\\(.)/gs, '$1')) ?? []
    const wanted = [host, String(port), database, user]
    if (fields.length >= 5 && wanted.every((text, index) => fields[index] === '*' || fields[index] === text)) return fields[4]
  }
  return undefined
}
