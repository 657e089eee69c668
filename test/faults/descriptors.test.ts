import { expect, test } from 'bun:test'
import { connect as connectSocket, type Socket } from 'node:net'
import { connect, payloadOf } from '../support/client.ts'
import { commandLine, start } from '../support/program.ts'
import { database, sql } from '../support/setup.ts'
import { token } from '../support/token.ts'

/** Connections that ask for nothing, of which the system may reset those that are not accepted. */
function openIdle(port: number, count: number): Disposable {
  const sockets: Socket[] = []
  for (let index = 0; index < count; index++) sockets.push(connectSocket(port, '127.0.0.1').on('error', () => undefined))
  return {
    [Symbol.dispose]: () => {
      for (const socket of sockets) socket.destroy()
    },
  }
}

test('without descriptors clients stay, the database is reached anew, and there is room again once others leave', async () => {
  await using program = await start(
    { PGWS_DB_URI: database().uri, PGWS_CHECK_LISTENER_INTERVAL: '1000', PGWS_ADMIN_PORT: '0' },
    ['-c', 'ulimit -n 256; exec "$@"', 'sh', ...commandLine],
    'sh',
  )
  const admin = (await program.logged(/admin port port=\d+/)).split('=')[1]
  const metric = async (name: string): Promise<number> => {
    const text = await (await fetch(`http://127.0.0.1:${admin}/metrics`)).text()
    return Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1])
  }
  const url = `${program.origin}/chat/${await token({ mode: 'rw' })}`
  await using client = await connect(url)
  const goesRound = async (text: string): Promise<void> => {
    client.send(text)
    expect(payloadOf(await client.next())).toBe(text)
  }

  using idle = openIdle(program.port, 400)
  const paused = program.logged(/error: accepting no connections reason="out of file descriptors"/)
  expect(await Promise.race([paused, Bun.sleep(5000)])).toBeDefined()
  await goesRound('while no descriptor is left')
  const before = await metric('process_cpu_seconds_total')
  await Bun.sleep(1000)
  expect((await metric('process_cpu_seconds_total')) - before).toBeLessThan(0.3)

  await sql()`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'postgres-websockets'`
  expect(await Promise.race([program.logged(/listening again/), Bun.sleep(5000)])).toBeDefined()
  await goesRound('over new sessions')
  await expect(connect(url)).rejects.toThrow()
  expect(await metric('pgws_accept_pauses_total')).toBe(1)

  idle[Symbol.dispose]()
  expect(await Promise.race([program.logged(/info: accepting connections again/), Bun.sleep(5000)])).toBeDefined()
  await using other = await connect(url)
  other.send('to both')
  expect([payloadOf(await client.next()), payloadOf(await other.next())]).toEqual(['to both', 'to both'])
  expect(program.stderr().match(/accepting/g)).toHaveLength(2)
})
