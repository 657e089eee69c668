import { expect, test } from 'bun:test'
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { connect, nextNew, payloadOf } from '../support/client.ts'
import { startPostgres } from '../support/postgres.ts'
import { start } from '../support/program.ts'
import { token } from '../support/token.ts'

test('after a failover to a streaming replica, clients are served within 5 s of its promotion and keep their sockets', async () => {
  const primary = await startPostgres({ settings: { wal_level: 'replica', max_wal_senders: '5' } })
  await primary.stop('fast')
  const replica = await startPostgres({
    prepare: (folder) => {
      cpSync(primary.dataFolder, folder, { recursive: true })
      writeFileSync(join(folder, 'standby.signal'), '')
    },
    settings: {
      primary_conninfo: `host=127.0.0.1 port=${primary.port} user=postgres password=${primary.password}`,
      hot_standby: 'on',
    },
  })
  await primary.start()
  const hosts = `127.0.0.1:${primary.port},127.0.0.1:${replica.port}`
  const program = await start({
    PGWS_DB_URI: `postgres://postgres:${primary.password}@${hosts}/postgres?target_session_attrs=read-write&connect_timeout=2`,
    PGWS_CHECK_LISTENER_INTERVAL: '1000',
  })
  const client = await connect(`${program.origin}/failover/${await token({ mode: 'rw' })}`, { protocols: ['pgws'] })
  client.send('before')
  expect(await nextNew(client)).toBe('before')

  await primary.stop('immediate')
  await program.logged(/listener lost/)
  client.send('in between')
  const sql = postgres(`postgres://postgres:${primary.password}@127.0.0.1:${replica.port}/postgres`, { max: 1 })
  await program.logged(/cannot listen .*(recovery|replica)/)
  const [promoted] = await sql`select pg_promote() as promoted`
  expect(promoted?.promoted).toBe(true)
  const began = Date.now()
  expect(JSON.parse(await client.next())).toMatchObject({ event: 'MessagesMissed', channel: 'failover' })
  expect(await nextNew(client)).toBe('in between')
  expect(Date.now() - began).toBeLessThan(5000)
  client.send('after')
  expect(await nextNew(client)).toBe('after')
  await client.close()
  await program.stop()
  await sql.end()
  await replica.stop()
  await primary.start()
  await primary.stop()
}, 60_000)

test.each(['any', 'prefer-standby'])(
  'where a replica comes first among the hosts, all goes over the primary (%s)',
  async (target) => {
    const primary = await startPostgres()
    await primary.stop('fast')
    const replica = await startPostgres({
      prepare: (folder) => {
        cpSync(primary.dataFolder, folder, { recursive: true })
        writeFileSync(join(folder, 'standby.signal'), '')
      },
      settings: { hot_standby: 'on' },
    })
    await primary.start()
    const hosts = `127.0.0.1:${replica.port},127.0.0.1:${primary.port}`
    await using program = await start({
      PGWS_DB_URI: `postgres://postgres:${primary.password}@${hosts}/postgres?target_session_attrs=${target}`,
    })
    await using client = await connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)
    client.send('hello')
    expect(payloadOf(await client.next())).toBe('hello')
    await replica.stop()
    await primary.stop()
  },
)
