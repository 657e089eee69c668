/** Owns the authority that a function of the database is: what it is asked, what its answers mean, and what of them is remembered. */

import type { Decision } from '../access/grant.ts'
import type { Authority } from '../channels/authority.ts'
import { asDatabaseError, type Database } from '../database/connection.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { shown } from '../shown.ts'
import { type Answer, decisionStatements, type Question, readAnswers } from './decision.ts'
import { createFaultLog } from './fault-log.ts'
import { createQuestions } from './questions.ts'
import { createRemembered } from './remembered.ts'
import { createTransactions } from './transactions.ts'

export interface DatabaseAuthority extends Authority {
  /** Forgets what was decided, also what is being decided at the moment. */
  forget(): void
  stop(): void
}

export interface AuthorityOptions {
  readonly database: Database
  /** Schema and name of the function, each in double quotes. */
  readonly name: string
  readonly log: Log
  readonly metrics: Pick<Metrics, 'authorizeQuestions' | 'authorizeQueries' | 'decisions'>
  /** A clock that never goes back, in milliseconds. */
  readonly now?: () => number
}

type Who = Parameters<Authority['decide']>[0]

/** SQLSTATE query_canceled: no exception block catches it. */
const CANCELED = '57014'

/** Questions that are asked together where one of a query was at fault; behind another fault among them, each is asked alone. */
const PART = 32

const UNKNOWN: Decision = 'AUTHORITY_UNAVAILABLE'

export function createAuthority({
  database,
  name,
  log,
  metrics,
  now = () => performance.now(),
}: AuthorityOptions): DatabaseAuthority {
  const transactions = createTransactions(database)
  const faults = createFaultLog(log, 'cannot say what a client may')
  const remembered = createRemembered(now)
  const questions = createQuestions({ ask, now })
  const underWay = new Map<string, Promise<Decision>>()
  /** How often all was forgotten. */
  let rounds = 0

  /** In a transaction for each role. */
  async function ask(asked: readonly Question[]): Promise<readonly Decision[]> {
    const decisions = new Map<Question, Decision>()
    try {
      for (const alike of Map.groupBy(asked, ({ role }) => role).values()) {
        const found = await askAlike(alike)
        for (const [index, question] of alike.entries()) decisions.set(question, found[index] ?? UNKNOWN)
      }
    } catch (error) {
      const { code, message } = asDatabaseError(error)
      faults.add({ reason: message, code, questions: asked.length - decisions.size })
    }
    return asked.map((question) => decisions.get(question) ?? UNKNOWN)
  }

  /** @throws DatabaseError that concerns all of them, and others. */
  async function askAlike(alike: readonly Question[]): Promise<readonly Decision[]> {
    metrics.authorizeQueries.add()
    try {
      const rows = await transactions.run(decisionStatements(name, alike[0]?.role, alike))
      const answers = readAnswers(rows.at(-1) ?? [])
      return alike.map((question, index) => decisionOf(question, answers[index]))
    } catch (error) {
      const { code, message, answered, isPassing } = asDatabaseError(error)
      if (!answered || (isPassing && code !== CANCELED)) throw error
      // One of them is at fault, and the others are answered. The fault may be to take longer than the time limit: it does so
      // three times like this, and would ten times in halves.
      if (alike.length > 1) return askParts(alike, alike.length > PART ? PART : 1)
      faults.add({ reason: shown(message), code, channel: shown(alike[0]?.channel ?? '') })
      return [UNKNOWN]
    }
  }

  async function askParts(alike: readonly Question[], size: number): Promise<readonly Decision[]> {
    const decisions: Decision[] = []
    for (let at = 0; at < alike.length; at += size) decisions.push(...(await askAlike(alike.slice(at, at + size))))
    return decisions
  }

  function decisionOf({ channel, role }: Question, found: Answer | undefined): Decision {
    if (found === undefined) return UNKNOWN
    if ('step' in found) {
      const { step, code, message } = found
      faults.add({ channel: shown(channel), reason: shown(message), code, ...(role === undefined ? {} : { role: shown(role) }) })
      return step === 'role' ? 'ROLE_NOT_ALLOWED' : UNKNOWN
    }
    const { answer } = found
    if (answer === 'r' || answer === 'w' || answer === 'rw') return answer
    if (answer !== null)
      faults.add({ channel: shown(channel), reason: 'the answer is none of r, w, rw and null', answer: shown(answer) })
    return 'no'
  }

  function decideOne(question: Question, isAnew: boolean): Decision | Promise<Decision> {
    const { claims, channel } = question
    // No text of PostgreSQL holds a NUL.
    if (channel.includes('\0')) return 'no'
    const key = `${channel}\0${claims}`
    const known = isAnew ? undefined : (remembered.get(key) ?? underWay.get(key))
    if (known !== undefined) return known
    metrics.authorizeQuestions.add()
    const deciding = questions.ask(question).then((decision) => {
      metrics.decisions.add(decision.toLowerCase())
      if (underWay.get(key) === deciding) {
        underWay.delete(key)
        if (decision !== UNKNOWN) remembered.put(key, decision)
      }
      return decision
    })
    underWay.set(key, deciding)
    return deciding
  }

  function decide({ claims, role }: Who, channels: readonly string[], isAnew = false): ReturnType<Authority['decide']> {
    const decisions = channels.map((channel) => decideOne({ claims, role, channel }, isAnew))
    const isKnown = (decision: Decision | Promise<Decision>): decision is Decision => !(decision instanceof Promise)
    if (decisions.every(isKnown)) return decisions
    const round = rounds
    // One that was remembered may have been forgotten while the others were asked about.
    return Promise.all(decisions).then((found) => (round === rounds ? found : decide({ claims, role }, channels)))
  }

  return {
    decide,
    forget() {
      rounds++
      remembered.clear()
      questions.again()
    },
    stop() {
      questions.stop()
      transactions.stop()
      faults.stop()
    },
  }
}
