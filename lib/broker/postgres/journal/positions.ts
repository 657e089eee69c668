/** Owns positions as readers know them: EPOCH-NUMBER, where history may have forked between two epochs. Pure. */
import type { Row } from '../../../database/connection.ts'

/** Numbers from `began` on were given in this epoch, up to where the next one begins. */
export interface Epoch {
  /** Counts the epochs of all clusters that this database was in. */
  readonly number: number
  /** As it stands in a position. */
  readonly name: string
  readonly began: number
}

/** A row is an epoch of the cluster that is asked, the earliest first. */
export const EPOCHS = `select number, to_hex(cluster) || '.' || timeline as name, began::float8 as began from pgws.epochs_here()`

export const epochOf = (row: Row): Epoch => ({ number: Number(row.number), name: String(row.name), began: Number(row.began) })

const POSITION = /^([0-9a-f]{1,16}\.[0-9]{1,9})-([0-9]{1,15})$/

/** The position of a message, or of what lies behind it. */
export function positionOf(epochs: readonly Epoch[], number: number): string {
  const epoch = epochs.findLast(({ began }) => began <= number) ?? epochs[0]
  return `${epoch?.name ?? '0.0'}-${number}`
}

/**
 * The number of a position. Whether that is beyond the newest, or older than what is kept, is for the caller to see.
 *
 * @returns `lost` for one of another cluster, or from behind a fork.
 */
export function numberOf(epochs: readonly Epoch[], position: string): number | 'malformed' | 'lost' {
  const [, name, digits] = POSITION.exec(position) ?? []
  if (name === undefined) return 'malformed'
  const number = Number(digits)
  const index = epochs.findIndex((epoch) => epoch.name === name)
  if (index === -1 || epochs.slice(index + 1).some(({ began }) => began <= number)) return 'lost'
  return number
}
