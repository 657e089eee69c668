import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { parse } from '../../lib/config/config.ts'
import { check } from '../../lib/doctor.ts'
import { fixture } from '../support/files.ts'
import { secret } from '../support/token.ts'

/** What is found, as `NAME: ✓ or ✗, what`, with a database that is not there. */
async function found(env: Record<string, string>, now: number): Promise<string> {
  const config = parse({ PGWS_DB_URI: 'postgres://u@127.0.0.1:1/d', PGWS_JWT_SECRET: secret, ...env }, readFileSync, 'me')
  if ('faults' in config) throw new Error(config.faults.join())
  const lines: string[] = []
  for await (const { name, isWell, found } of check(config, now)) lines.push(`${name}: ${isWell ? '✓' : '✗'} ${found}`)
  return lines.join('\n')
}

test('a database that is not there is no reason to leave the rest untried', async () => {
  const text = await found({}, Date.now())
  expect(text).toMatch(/^database: ✗ 127\.0\.0\.1:1 .*ECONNREFUSED/m)
  expect(text).toMatch(/^LISTEN and NOTIFY: ✗ /m)
  expect(text).toMatch(/^keys: ✓ HS256 HS384 HS512$/m)
})

test('a certificate is well until its end', async () => {
  const env = { PGWS_CERTIFICATE_FILE: fixture('server.crt'), PGWS_KEY_FILE: fixture('server.key') }
  const until = Date.parse(/until (.*GMT)/.exec(await found(env, 0))?.[1] ?? '')
  expect(await found(env, until - 1)).toMatch(/^certificate: ✓ DNS:localhost/m)
  expect(await found(env, until)).toMatch(/^certificate: ✗ DNS:localhost.*it has expired$/m)
})

test('a folder of static files is one', async () => {
  expect(await found({ PGWS_ROOT_PATH: fixture('server.crt') }, 0)).toMatch(/^static files: ✗ .*is no folder that can be read$/m)
  expect(await found({ PGWS_ROOT_PATH: fixture('') }, 0)).toMatch(/^static files: ✓ .*, without index\.html$/m)
})
