import { expect, test } from 'bun:test'
import { resolve } from 'node:path'
import { exportJWK, generateKeyPair } from 'jose'
import { fixture } from '../support/files.ts'
import { type Environment, launch } from '../support/program.ts'
import { database } from '../support/setup.ts'

async function check(env: Environment): Promise<{ code: unknown; lines: string[]; all: string }> {
  const program = launch(env, ['--check'])
  const code = await program.exited
  return { code, lines: program.stdout().trimEnd().split('\n'), all: program.stdout() + program.stderr() }
}

test('--check says, item by item, what it tried and found', async () => {
  const { publicKey } = await generateKeyPair('ES256', { extractable: true })
  const { code, lines } = await check({
    PGWS_DB_URI: database().uri,
    PGWS_JWT_SECRET: JSON.stringify({ ...(await exportJWK(publicKey)), kid: 'one' }),
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
