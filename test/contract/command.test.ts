import { describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { variables } from '../../lib/config/variables.ts'
import { version } from '../../package.json'
import { connect } from '../support/client.ts'
import { freePort } from '../support/postgres.ts'
import { launch, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { secret, token } from '../support/token.ts'

test('standard output gets the two lines that scripts know, and everything else goes to standard error', async () => {
  await using program = await start({ PGWS_DB_URI: database().uri })
  await using client = await connect(`${program.origin}/chat/${await token({ mode: 'rw' })}`)
  client.send('x')
  await client.next()
  await program.stop()
  expect(program.stdout()).toBe(
    `postgres-websockets ${version} / Connects websockets to PostgreSQL asynchronous notifications.\nListening on port ${program.port}\n`,
  )
  expect(program.stderr()).toContain('info: stopped')
})

test('a wrong configuration names every wrong variable at once, tells no secret and exits with 1', async () => {
  const program = launch({
    PGWS_DB_URI: 'postgres://u:pass-word-1@h:x/d',
    PGWS_JWT_SECRET: 'secret-2',
    PGWS_PORT: 'x',
    PGWS_CHECK_LISTENER_INTERVAL: 'y',
  })
  expect(await program.exited).toBe(1)
  for (const name of ['PGWS_DB_URI', 'PGWS_JWT_SECRET', 'PGWS_PORT', 'PGWS_CHECK_LISTENER_INTERVAL']) {
    expect(program.stderr()).toMatch(new RegExp(`^ {2}${name} .*For example: ${name}="`, 'm'))
  }
  expect(program.stderr() + program.stdout()).not.toMatch(/pass-word-1|secret-2/)
})

test('while the database cannot be reached, standard error says which one is waited for', async () => {
  const port = await freePort()
  const program = launch({ PGWS_DB_URI: `postgres://u@127.0.0.1:${port},localhost:${port}/d`, PGWS_RETRIES: '1' })
  await program.bound()
  await program.logged(new RegExp(`info: waiting for the database server=127.0.0.1:${port},localhost:${port}\n`))
  expect(await program.exited).toBe(1)
})

describe('the command line', () => {
  test('--ready tells of a refused connection without the advice of the runtime', async () => {
    const port = await freePort()
    const program = launch({ PGWS_ADMIN_PORT: `${port}` }, ['--ready'])
    expect(await program.exited).toBe(1)
    expect(program.stderr()).toMatch(new RegExp(`the admin port ${port} does not answer: .*refused`, 'i'))
    expect(program.stderr()).not.toContain('?')
  })
  test.each(['--help', '-h'])('%s names every variable and every flag', async (flag) => {
    const program = launch({}, [flag])
    expect(await program.exited).toBe(0)
    for (const { name } of Object.values(variables)) expect(program.stdout()).toContain(name)
    for (const flag of ['--help', '--version', '--env-file']) expect(program.stdout()).toContain(flag)
  })
  test.each(['--version', '-v'])('%s is that of package.json', async (flag) => {
    const program = launch({}, [flag])
    expect(await program.exited).toBe(0)
    expect(program.stdout()).toBe(`postgres-websockets ${version}\n`)
  })
  test.each([['--port'], ['serve'], ['--env-file']])('%s alone is an error with a hint', async (flag) => {
    const program = launch({}, [flag])
    expect(await program.exited).toBe(1)
    expect(program.stderr()).toContain('--help')
    expect(program.stdout()).toBe('')
  })
  test('--env-file reads both forms, and the environment wins', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'pgws-env-'))
    const file = join(folder, 'env')
    for (const form of ['export ', '']) {
      writeFileSync(
        file,
        `# comment\n${form}PGWS_DB_URI="${database().uri}"\n${form}PGWS_LISTEN_CHANNEL=from-file\n${form}PGWS_PORT=1\n`,
      )
      await using program = await start({ PGWS_DB_URI: '' }, ['--env-file', file])
      expect(program.stderr()).toContain('channel=from-file')
      expect(program.port).not.toBe(1)
    }
    writeFileSync(file, `PGWS_JWT_SECRET\n${secret}\n`)
    for (const [path, fault] of [
      [file, 'line 1 is not KEY=value'],
      [join(folder, 'none'), 'cannot be read'],
    ] as const) {
      const program = launch({}, ['--env-file', path])
      expect(await program.exited).toBe(1)
      expect(program.stderr()).toContain(fault)
      expect(program.stderr()).not.toContain(secret)
    }
    rmSync(folder, { recursive: true })
  })
})
