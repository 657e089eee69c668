import { expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { connect, handshake } from '../support/client.ts'
import { start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { token } from '../support/token.ts'

test('promtool accepts /metrics without a word', async () => {
  await using program = await start({ PGWS_DB_URI: database().uri, PGWS_ADMIN_PORT: '0' })
  const client = await connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)
  client.send('x')
  await client.next()
  await client.close()
  await handshake(program.port, '/x')
  const admin = (await program.logged(/admin port port=\d+/)).split('=')[1]
  const input = await (await fetch(`http://127.0.0.1:${admin}/metrics`)).text()
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input, encoding: 'utf8' })
  expect({ status, output: stdout + stderr }).toEqual({ status: 0, output: '' })
})
