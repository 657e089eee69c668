/** Owns the questions that wait for the database: those that come in while it is asked go together in the next query. */
import type { Decision } from '../access/grant.ts'
import type { Question } from './decision.ts'

export interface QuestionsOptions {
  /** Asks them all, and does not reject. */
  readonly ask: (questions: readonly Question[]) => Promise<readonly Decision[]>
  /** A clock that never goes back, in milliseconds. */
  readonly now: () => number
}

export interface Questions {
  ask(question: Question): Promise<Decision>
  /** What the database says from now on may be something else: those under way are asked again before they are answered. */
  again(): void
  /** Answers all that nothing is known. */
  stop(): void
}

interface Pending extends Question {
  readonly askedAt: number
  readonly settle: (decision: Decision) => void
}

/** Questions of one query, and characters of their claims. */
const BATCH = 1000
const BATCH_CHARACTERS = 4_000_000

/** Questions that may wait. */
const WAITING = 100_000

/** Milliseconds without an answer after which a question is answered that nothing is known. */
const PATIENCE = 10_000
const LOOK_EVERY = 1000

export function createQuestions({ ask, now }: QuestionsOptions): Questions {
  let waiting: Pending[] = []
  let underWay: readonly Pending[] = []
  /** How often all was to be asked again. */
  let rounds = 0
  let isRunning = false
  let isStopped = false
  let looks: ReturnType<typeof setInterval> | undefined

  function take(): readonly Pending[] {
    let characters = 0
    const end = waiting.findIndex(({ claims }, index) => {
      characters += claims.length
      return index > 0 && (index >= BATCH || characters > BATCH_CHARACTERS)
    })
    return waiting.splice(0, end === -1 ? waiting.length : end)
  }

  async function run(): Promise<void> {
    isRunning = true
    looks = setInterval(giveUp, LOOK_EVERY)
    // Whoever asks for several channels does so in one tick.
    await Promise.resolve()
    while (waiting.length > 0) {
      underWay = take()
      const round = rounds
      const decisions = await ask(underWay)
      if (round !== rounds) waiting = [...underWay, ...waiting]
      else for (const [index, { settle }] of underWay.entries()) settle(decisions[index] ?? 'AUTHORITY_UNAVAILABLE')
      underWay = []
    }
    clearInterval(looks)
    isRunning = false
  }

  const answerNone = (pending: readonly Pending[]): void => {
    for (const { settle } of pending) settle('AUTHORITY_UNAVAILABLE')
  }

  /** The database may be silent, or a function take its time. */
  function giveUp(): void {
    const isLate = ({ askedAt }: Pending): boolean => now() - askedAt >= PATIENCE
    answerNone([...underWay, ...waiting].filter(isLate))
    waiting = waiting.filter((pending) => !isLate(pending))
  }

  return {
    ask(question) {
      if (isStopped || waiting.length >= WAITING) return Promise.resolve('AUTHORITY_UNAVAILABLE')
      return new Promise((settle) => {
        waiting.push({ ...question, askedAt: now(), settle })
        if (!isRunning) void run()
      })
    },
    again() {
      rounds++
    },
    stop() {
      isStopped = true
      clearInterval(looks)
      answerNone([...underWay, ...waiting])
      waiting = []
    },
  }
}
