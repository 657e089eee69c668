/** Owns the end of a run: whatever was started for several tests is stopped, also after a failure. */

const endings: (() => unknown)[] = []

/** Calls this once all tests of the run are over. */
export const atEnd = (end: () => unknown): void => void endings.push(end)

/** Ends the latest first. */
export async function endAll(): Promise<void> {
  for (const end of endings.splice(0).reverse()) await end()
}
