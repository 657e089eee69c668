import { expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { binary } from '../support/binary.ts'
import { connect, nextNew } from '../support/client.ts'
import { start } from '../support/program.ts'
import { database, sql } from '../support/setup.ts'
import { token } from '../support/token.ts'

test("when the database's name stops resolving, clients stay, and what they send arrives once it resolves again", async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pgws-dns-'))
  const hosts = join(folder, 'hosts')
  // Written in place: the mount below shows this very file.
  const resolves = (names: string): void => writeFileSync(hosts, `127.0.0.1 localhost ${names}\n`)
  resolves('database.test')
  const uri = database().uri.replace('127.0.0.1', 'database.test')
  const program = await start(
    { PGWS_DB_URI: uri, PGWS_CHECK_LISTENER_INTERVAL: '1000' },
    ['--mount', 'sh', '-c', `mount --bind ${hosts} /etc/hosts && exec ${binary}`],
    'unshare',
  )
  const client = await connect(`${program.origin}/dns/${await token({ mode: 'rw' })}`)
  client.send('before')
  expect(await nextNew(client)).toBe('before')

  resolves('')
  await sql()`select pg_terminate_backend(pid) from pg_stat_activity
    where application_name = 'postgres-websockets' and pid <> pg_backend_pid()`
  await program.logged(/cannot listen reason="[^"]*database\.test/)
  for (let index = 0; index < 10; index++) client.send(String(index))
  resolves('database.test')
  for (let index = 0; index < 10; index++) expect(await nextNew(client)).toBe(String(index))
  await client.close()
  expect(await program.stop()).toBe(0)
  rmSync(folder, { recursive: true })
})
