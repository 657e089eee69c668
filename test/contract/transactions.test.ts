import { afterEach, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { DatabaseError } from '../../lib/database/connection.ts'
import { parseConninfo } from '../../lib/database/conninfo.ts'
import { createDatabase } from '../../lib/database/database.ts'
import { createTransactions, type Transactions } from '../../lib/rules/transactions.ts'
import { database, sql, unique } from '../support/setup.ts'

let transactions: Transactions

afterEach(() => transactions.stop())

function open(): void {
  const conninfo = parseConninfo(database().uri, {}, readFileSync, 'nobody')
  transactions = createTransactions(createDatabase(() => conninfo, 1000))
}

const faultOf = async (run: Promise<unknown>): Promise<DatabaseError> => {
  const fault = await run.then(
    () => undefined,
    (error) => error,
  )
  if (!(fault instanceof DatabaseError)) throw new Error('it was to fail', { cause: fault })
  return fault
}

test('statements of a transaction see what those ahead of them set, and their rows come back', async () => {
  open()
  const rows = await transactions.run([
    { text: "select set_config('pgws.calls', $1, true)", parameters: ['two'] },
    { text: "select current_setting('pgws.calls') as calls" },
  ])
  expect(rows[1]).toEqual([{ calls: 'two' }])
  const [after] = await transactions.run([{ text: "select current_setting('pgws.calls', true) as calls" }])
  expect(after).toEqual([{ calls: '' }])
})

test('the first fault is told, nothing of its transaction stands, and the next one is well', async () => {
  open()
  const table = unique('ledger')
  await sql().unsafe(`create table "${table}" (text text)`)
  const fault = await faultOf(
    transactions.run([
      { text: `insert into "${table}" values ($1)`, parameters: ['kept'] },
      { text: 'select 1 / 0' },
      { text: 'select 2' },
    ]),
  )
  expect([fault.code, fault.answered]).toEqual(['22012', true])
  expect(await sql().unsafe(`select * from "${table}"`)).toHaveLength(0)
  const [rows] = await transactions.run([{ text: 'select 3 as three' }])
  expect(rows).toEqual([{ three: 3 }])
})

test('what fails at commit is told', async () => {
  open()
  const table = unique('parents')
  await sql().unsafe(
    `create table "${table}" (id int primary key, parent int references "${table}" deferrable initially deferred)`,
  )
  const fault = await faultOf(transactions.run([{ text: `insert into "${table}" values (1, 2)` }]))
  expect(fault.code).toBe('23503')
})

test("the time limits of the server's role hold", async () => {
  const role = unique('limited')
  await sql().unsafe(`create role "${role}" login password '${database().password}'`)
  await sql().unsafe(`alter role "${role}" set statement_timeout = '50ms'`)
  const uri = new URL(database().uri)
  uri.username = role
  const conninfo = parseConninfo(uri.href, {}, readFileSync, 'nobody')
  transactions = createTransactions(createDatabase(() => conninfo, 1000))
  const fault = await faultOf(transactions.run([{ text: 'select pg_sleep(5)' }]))
  expect(fault.code).toBe('57014')
})

test('a session that is killed in the middle is told, and replaced for the next transaction', async () => {
  open()
  const fault = await faultOf(transactions.run([{ text: 'select pg_terminate_backend(pg_backend_pid())' }]))
  expect(fault.isPassing).toBe(true)
  const [rows] = await transactions.run([{ text: 'select 3 as three' }])
  expect(rows).toEqual([{ three: 3 }])
})
