/** Owns the list of all breaks. */
import { access } from './access.ts'
import { broker } from './broker.ts'
import { brokerAlone } from './broker-alone.ts'
import { channels } from './channels.ts'
import { client } from './client.ts'
import { commands } from './commands.ts'
import { configuration } from './config.ts'
import { connections } from './connections.ts'
import { database } from './database.ts'
import { doors } from './doors.ts'
import { journal } from './journal.ts'
import { journalOperations } from './journal-operations.ts'
import { messageFunction } from './message-function.ts'
import type { Mutant } from './mutant.ts'
import { examplePage } from './page.ts'
import { program } from './program.ts'
import { rules } from './rules.ts'
import { sessions } from './sessions.ts'

export const mutants: readonly Mutant[] = [
  ...access,
  ...broker,
  ...brokerAlone,
  ...channels,
  ...client,
  ...commands,
  ...configuration,
  ...connections,
  ...database,
  ...doors,
  ...journal,
  ...journalOperations,
  ...messageFunction,
  ...rules,
  ...examplePage,
  ...program,
  ...sessions,
]
