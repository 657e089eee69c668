import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { parse } from '../../lib/config/config.ts'
import { check } from '../../lib/doctor.ts'
import { runtime } from '../../lib/runtime/bun.ts'
import { fixture } from '../support/files.ts'
import { secret } from '../support/token.ts'

/** What is found, as `NAME: MARK what`, with a database that is not there. */
async function found(env: Record<string, string>, now: number): Promise<string> {
  const fixed = { PGWS_DB_URI: 'postgres://u@127.0.0.1:1/d', PGWS_JWT_SECRET: secret, PGWS_HOST: '127.0.0.1', PGWS_PORT: '0' }
  const config = parse({ ...fixed, ...env }, readFileSync, 'me')
  if ('faults' in config) throw new Error(config.faults.join())
  const lines: string[] = []
  for await (const { name, mark, found } of check(config, runtime, now)) lines.push(`${name}: ${mark} ${found}`)
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

test('a relative folder of static files is shown as what it resolves to', async () => {
  const root = relative('.', fixture(''))
  expect(await found({ PGWS_ROOT_PATH: root }, 0)).toContain(
    `static files: ! ${resolve(root)}, without index.html: ${root} is relative to where the program is started`,
  )
})

test('the ports are bound, both at once, and let go of', async () => {
  const taken = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() })
  const isTaken = `${taken.port} on 127.0.0.1: it is in use`
  expect(await found({ PGWS_PORT: `${taken.port}` }, 0)).toContain(`port: ✗ port ${isTaken}`)
  expect(await found({ PGWS_ADMIN_PORT: `${taken.port}` }, 0)).toContain(`admin port: ✗ port ${isTaken}`)
  const free = `${taken.port}`
  await taken.stop(true)
  for (const name of ['PGWS_PORT', 'PGWS_ADMIN_PORT'])
    expect(await found({ [name]: free }, 0)).toContain(`port: ✓ ${free} on 127.0.0.1`)
  const alike = { PGWS_PORT: free, PGWS_ADMIN_PORT: free, PGWS_ADMIN_HOST: 'localhost' }
  expect(await found(alike, 0)).toContain(`admin port: ✗ port ${free} on localhost: it is in use`)
})
