import type { connect, Missed } from '../../client-example/postgres-websockets.js'

export interface Given {
  readonly url: string
  readonly token: string
  /** A channel of the journal, on which the writer publishes. */
  readonly kept: string
  /** One that is notified, with numbers that end with the text `end`. */
  readonly plain: string
}

export interface Result {
  /** What the reader got on the channel of the journal. */
  readonly seen: string[]
  readonly acknowledged: string[]
  readonly refused: string[]
  /** What it got on the other one. */
  readonly plain: (number | 'end')[]
  readonly missed: Missed[]
  /** Times that a connection was lost. */
  readonly lost: number
}

export function play(module: typeof connect, given: Given): Promise<Result>
