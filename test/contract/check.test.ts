import { expect, test } from 'bun:test'
import { createServer } from 'node:net'
import { relative, resolve } from 'node:path'
import { variables } from '../../lib/config/variables.ts'
import { fixture } from '../support/files.ts'
import { type Environment, launch, start } from '../support/program.ts'
import { database } from '../support/setup.ts'
import { keyPair } from '../support/token.ts'

async function check(env: Environment): Promise<{ code: unknown; lines: string[]; all: string }> {
  const program = launch(env, ['--check'])
  const code = await program.exited
  return { code, lines: program.stdout().trimEnd().split('\n'), all: program.stdout() + program.stderr() }
}

test('--check says, item by item, what it tried and found', async () => {
  const { jwk } = await keyPair('ES256', { kid: 'one' })
  const { code, lines } = await check({
    PGWS_DB_URI: database().uri,
    PGWS_JWT_SECRET: JSON.stringify(jwk),
    PGWS_CERTIFICATE_FILE: fixture('server.crt'),
    PGWS_KEY_FILE: fixture('server.key'),
    PGWS_ROOT_PATH: resolve(import.meta.dir, '../../client-example'),
  })
  expect(code).toBe(0)
  expect(lines).toContain('✓ PGWS_DB_URI')
  expect(lines).toContain(`✓ database: 127.0.0.1:${database().port}, PostgreSQL 18.4, primary, no TLS`)
  expect(lines).toContainEqual(
    expect.stringMatching(/^✓ LISTEN and NOTIFY: a notification came back on "postgres-websockets-listener" in \d+ ms$/),
  )
  expect(lines).toContain('✓ keys: ES256 (kid "one")')
  expect(lines).toContainEqual(expect.stringMatching(/^✓ certificate: DNS:localhost, until .*GMT$/))
  expect(lines).toContainEqual(expect.stringMatching(/^✓ static files: .*client-example$/))
  expect(lines.filter((line) => !line.startsWith('✓'))).toBeEmpty()
})

test('--check names every wrong variable and exits with 1, without a secret', async () => {
  const { code, lines, all } = await check({
    PGWS_DB_URI: 'postgres://u:pass-word@h:x/d',
    PGWS_JWT_SECRET: 'short-one',
    PGWS_META_CHANNEL: 'fine',
  })
  expect(code).toBe(1)
  expect(lines).toContainEqual(expect.stringMatching(/^✗ PGWS_DB_URI port is not a number/))
  expect(lines).toContainEqual(expect.stringMatching(/^✗ PGWS_JWT_SECRET is 9 bytes long/))
  expect(lines).toContain('✓ PGWS_META_CHANNEL')
  expect(all).not.toMatch(/pass-word|short-one/)
})

test('--check says what is wrong with what it reaches, and exits with 1', async () => {
  const { code, lines } = await check({
    PGWS_DB_URI: 'postgres://u:pw@127.0.0.1:1/d',
    PGWS_ROOT_PATH: '/nonexistent',
    PGWS_JWKS_URL: 'http://127.0.0.1:1/',
  })
  expect(code).toBe(1)
  expect(lines).toContainEqual(expect.stringMatching(/^✗ database: 127\.0\.0\.1:1 .*ECONNREFUSED/))
  expect(lines).toContainEqual(expect.stringMatching(/^✗ LISTEN and NOTIFY: /))
  expect(lines).toContainEqual(expect.stringMatching(/^✗ keys: /))
  expect(lines).toContain('✗ static files: /nonexistent is no folder that can be read')
})

test('--check binds what a start binds', async () => {
  const other = createServer()
  await new Promise<void>((bound) => other.listen(0, '127.0.0.1', bound))
  const address = other.address()
  const port = `${typeof address === 'object' ? address?.port : ''}`
  const { code, lines } = await check({ PGWS_DB_URI: database().uri, PGWS_PORT: port })
  expect(code).toBe(1)
  expect(lines).toContain(`✗ port: port ${port} on 127.0.0.1: it is in use`)
  other.close()
})

test('a host that is none is a fault that names the forms, at a check and at a start', async () => {
  const env = { PGWS_DB_URI: database().uri, PGWS_HOST: '*5' }
  expect((await check(env)).lines).toContainEqual(expect.stringMatching(/^✗ PGWS_HOST is "\*5".*\*, \*4, !4, \*6, !6/))
  const started = launch(env)
  expect(await started.exited).toBe(1)
  expect(started.stderr()).toMatch(/PGWS_HOST is "\*5".*\*, \*4, !4, \*6, !6/)
})

const hardlyMeant = {
  PGWS_PROT: '3000',
  PGWS_JWT_SECRET: variables.jwtSecret.sample,
  PGWS_ROOT_PATH: relative('.', resolve(import.meta.dir, '../../client-example')),
}

test('--check warns of what works but is hardly meant, and exits with 0', async () => {
  const { code, lines } = await check({ PGWS_DB_URI: database().uri, ...hardlyMeant })
  expect(lines).toContain('! PGWS_PROT is no variable of this program: PGWS_PORT?')
  expect(lines).toContainEqual(expect.stringMatching(/^! PGWS_JWT_SECRET is the secret that the sample publishes/))
  expect(lines).toContainEqual(expect.stringMatching(/^! static files: \/.*client-example: .* is relative/))
  expect(lines.filter((line) => line.startsWith('✗'))).toBeEmpty()
  expect(code).toBe(0)
})

test('a start warns of what is hardly meant, and of the secret only where others reach it', async () => {
  const env = { PGWS_DB_URI: database().uri, ...hardlyMeant, PGWS_ROOT_PATH: '/nonexistent' }
  const warnings = async (more: Environment): Promise<string> => {
    await using program = await start({ ...env, ...more })
    return program
      .stderr()
      .split('\n')
      .filter((line) => line.includes('warning: '))
      .join('\n')
  }
  const alone = await warnings({})
  expect(alone).toContain('PGWS_PROT is no variable of this program: PGWS_PORT?')
  expect(alone).toContain('/nonexistent is no folder that can be read')
  expect(alone).not.toContain('PGWS_JWT_SECRET')
  // 127.0.0.1 all the same, in a form of inet_aton(3) that is not known to be.
  expect(await warnings({ PGWS_HOST: '0x7f.1' })).toContain('PGWS_JWT_SECRET is the secret that the sample publishes')
})
