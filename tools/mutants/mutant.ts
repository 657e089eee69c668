/** Owns what one deliberate break is. */

export interface Mutant {
  /** The file that is broken, from the root of the clone. */
  readonly file: string
  /** A text that stands exactly once in the file. Short, and about what the line means, so that a refactoring seldom touches it. */
  readonly find: string
  readonly replace: string
  /** What no longer holds then. */
  readonly promise: string
  /** The test file that must fail. Those under `test/unit` run in milliseconds, the others build the program and start PostgreSQL. */
  readonly test: string
  /** Runs only tests whose name holds this text, which stands in the test file like that. */
  readonly title?: string
  /** The test waits for ever for what the break takes away: that its time passes is the failure. */
  readonly hangs?: true
}
