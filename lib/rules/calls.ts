/** Owns the statements in which a function of the database handles a batch of messages, and how their answer is read. */

import type { Frame } from '../channels/envelope.ts'
import type { Row } from '../database/connection.ts'
import { callStatement } from './call-statement.ts'
import type { Statement } from './transactions.ts'

/** A message on its way to the function. What the function is told stays the same, however often it is called for it. */
export interface Call {
  readonly claims: string
  readonly role: string | undefined
  readonly frame: Frame
  readonly text: string
  readonly key: string | undefined
  readonly id: string
  /** The seconds of its envelope. */
  readonly stamp: string
}

export interface CallsOptions {
  /** The function's name, as it may stand in a statement. */
  readonly name: string
  /** The channel that carries every message. */
  readonly channel: string
  /** Whether what is published on a channel goes into the journal instead. */
  readonly isKept: (channel: string) => boolean
  /** An envelope of a channel stays below so many bytes. */
  readonly limitOf: (channel: string) => number
}

/** What became of a batch. Calls from `done` on were not made. */
export interface Answers {
  readonly done: number
  /** Calls that were refused, by their index. */
  readonly refused: ReadonlyMap<number, { readonly code: string; readonly reason: string }>
}

export interface Calls {
  /** @param calls of one role. */
  statements(calls: readonly Call[]): readonly Statement[]
  /** @param rows of each of the statements. @param count how many calls there were. */
  answers(rows: readonly (readonly Row[])[], count: number): Answers
}

/** What the calls take from the transaction: all but the first two are arrays. */
const GIVEN = [
  'role',
  'channel',
  'claims',
  'channels',
  'heads',
  'middles',
  'ends',
  'limits',
  'kept',
  'frames',
  'payloads',
  'stamps',
  'ids',
  'keys',
] as const

const GIVE = `select ${GIVEN.map((name, index) => `set_config('pgws.${name}', $${index + 1}, true)`).join(', ')}`

/** A role's own time limits, which PostgreSQL sets only for who logs in. */
const LIMIT = `select set_config(split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1), true)
from pg_roles as r join pg_db_role_setting as s on s.setrole = r.oid, unnest(s.setconfig) as setting
where r.rolname = current_setting('pgws.role')
  and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
  and split_part(setting, '=', 1) in ('statement_timeout', 'lock_timeout')
order by s.setdatabase`

const TAKE: Statement = { text: "select current_setting('pgws.answers') as answers" }

/** An array as PostgreSQL reads it (manual, "Array Input and Output Syntax"). */
const array = (items: readonly (string | number)[]): string => `{${items.map(element).join(',')}}`

const element = (item: string | number): string =>
  typeof item === 'number' ? String(item) : `"${item.replaceAll(/["\\]/g, '\\$&')}"`

export function createCalls({ name, channel, isKept, limitOf }: CallsOptions): Calls {
  const make: Statement = { text: callStatement(name) }

  function describe(calls: readonly Call[]): readonly string[] {
    // What one sender's messages to one channel share is said once.
    const frames: Frame[] = []
    const claims: string[] = []
    const numbers = new Map<Frame, number>()
    const numberOf = (one: Call): number => {
      const known = numbers.get(one.frame)
      if (known !== undefined) return known
      claims.push(one.claims)
      const number = frames.push(one.frame)
      numbers.set(one.frame, number)
      return number
    }
    const given: Record<(typeof GIVEN)[number], string> = {
      role: calls[0]?.role ?? '',
      channel,
      frames: array(calls.map(numberOf)),
      payloads: array(calls.map(({ text }) => text)),
      stamps: array(calls.map(({ stamp }) => stamp)),
      ids: array(calls.map(({ id }) => id)),
      keys: array(calls.map(({ key, id }) => key ?? id)),
      claims: array(claims),
      channels: array(frames.map((frame) => frame.channel)),
      heads: array(frames.map(({ head }) => head)),
      middles: array(frames.map(({ middle }) => middle)),
      ends: array(frames.map(({ end }) => end)),
      limits: array(frames.map((frame) => limitOf(frame.channel))),
      kept: array(frames.map((frame) => String(isKept(frame.channel)))),
    }
    return GIVEN.map((name) => given[name])
  }

  return {
    statements(calls) {
      const give: Statement = { text: GIVE, parameters: describe(calls) }
      return calls[0]?.role === undefined ? [give, make, TAKE] : [give, { text: LIMIT }, make, TAKE]
    },
    answers(rows, count) {
      // What the statement above wrote.
      const answer = JSON.parse(String(rows.at(-1)?.[0]?.answers)) as Answer
      if ('role' in answer) {
        const refusal = { code: FORBIDDEN, reason: answer.role }
        return { done: count, refused: new Map(Array.from({ length: count }, (_, index) => [index, refusal])) }
      }
      const { done, refused, codes, reasons } = answer
      return {
        done,
        refused: new Map(
          refused?.map((place, index) => [place - 1, { code: codes?.[index] ?? '', reason: reasons?.[index] ?? '' }]),
        ),
      }
    },
  }
}

type Answer =
  | { readonly role: string }
  | {
      readonly done: number
      readonly refused: readonly number[] | null
      readonly codes: readonly string[] | null
      readonly reasons: readonly string[] | null
    }

/** SQLSTATE of insufficient_privilege. */
const FORBIDDEN = '42501'
