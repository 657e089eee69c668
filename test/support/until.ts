/** Owns waiting for what tells nobody when it happens: a row, an answer, a counter. Whatever tells is awaited itself. */

/** Asks again until it holds; the test's own limit ends it where it never does. @param every milliseconds between two questions. */
export async function until(holds: () => boolean | Promise<boolean>, every = 10): Promise<void> {
  while (!(await holds())) await Bun.sleep(every)
}
