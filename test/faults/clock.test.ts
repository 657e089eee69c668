import { expect, test } from 'bun:test'
import { connect } from '../support/client.ts'
import { start } from '../support/program.ts'
import { database, sql } from '../support/setup.ts'
import { token } from '../support/token.ts'

test('an exp that passes while the process is stopped closes the connection when it goes on, and nothing is sent for it after', async () => {
  await using program = await start({ PGWS_DB_URI: database().uri, PGWS_CHECK_LISTENER_INTERVAL: '1000' })
  const writer = await connect(`${program.origin}/stopped/${await token({ mode: 'w', exp: Date.now() / 1000 + 1 })}`)
  const staying = await connect(`${program.origin}/stopped/${await token({ mode: 'r' })}`)
  program.signal('SIGSTOP')
  await Bun.sleep(1500)
  writer.send('too late')
  program.signal('SIGCONT')
  expect(await writer.closed).toEqual({ code: 3001, reason: 'JWT expired' })
  await sql().notify('postgres-websockets-listener', '{"channel":"stopped"}')
  expect(await staying.next()).toBe('{"channel":"stopped"}')
  expect(program.stderr()).not.toContain('listener lost')
  await staying.close()
})

test('a token that lives for 300 ms is closed after 300 ms', async () => {
  await using program = await start({ PGWS_DB_URI: database().uri })
  const exp = Date.now() / 1000 + 0.3
  const client = await connect(`${program.origin}/short/${await token({ mode: 'r', exp })}`)
  expect((await client.closed).code).toBe(3001)
  expect(Date.now() / 1000).toBeGreaterThanOrEqual(exp)
  expect(Date.now() / 1000 - exp).toBeLessThan(0.5)
})
