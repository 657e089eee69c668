/** Owns what the tests ask the admin port. */
import type { Program } from './program.ts'

/** Where the admin port is, as the log says it: `http://127.0.0.1:PORT`. */
export const adminOf = async (program: Pick<Program, 'logged'>): Promise<string> =>
  `http://127.0.0.1:${(await program.logged(/admin port port=\d+/)).split('=')[1]}`

/** The status of `/ready`: 200 or 503. */
export const readiness = async (admin: string): Promise<number> => (await fetch(`${admin}/ready`)).status

/** The value of a sample, labels and all; 0 where there is none. */
export async function metric(admin: string, sample: string): Promise<number> {
  const text = await (await fetch(`${admin}/metrics`)).text()
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${sample} `))
  return Number(line?.split(' ').at(-1) ?? 0)
}
