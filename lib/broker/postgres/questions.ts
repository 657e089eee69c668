/** Owns the statements that go ahead of the messages. */

import { asDatabaseError, type Connection, type DatabaseError, type Row } from '../../database/connection.ts'

export interface Questions {
  readonly length: number
  /** Settled by the answer. @throws DatabaseError when PostgreSQL refuses it or cannot be reached. */
  add(statement: string, parameters: readonly string[]): Promise<readonly Row[]>
  /** Asks them one by one. @param told of each that was answered. */
  askAll(connected: () => Promise<Connection>, told: () => void): Promise<void>
  failAll(fault: DatabaseError): void
}

interface Question {
  readonly statement: string
  readonly parameters: readonly string[]
  readonly answered: (rows: readonly Row[]) => void
  readonly failed: (fault: DatabaseError) => void
}

export function createQuestions(): Questions {
  let questions: Question[] = []
  const take = (): readonly Question[] => {
    const taken = questions
    questions = []
    return taken
  }
  return {
    get length() {
      return questions.length
    },
    add: (statement, parameters) =>
      new Promise((answered, failed) => questions.push({ statement, parameters, answered, failed })),
    async askAll(connected, told) {
      for (const { statement, parameters, answered, failed } of take()) {
        try {
          const rows = await (await connected()).query(statement, parameters)
          told()
          answered(rows)
        } catch (error) {
          failed(asDatabaseError(error))
        }
      }
    },
    failAll(fault) {
      for (const { failed } of take()) failed(fault)
    },
  }
}
