import { afterAll, beforeAll, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parse } from '../../lib/config/config.ts'
import { parseEnvFile } from '../../lib/config/env-file.ts'
import { binary } from '../support/binary.ts'

const deploy = resolve(import.meta.dir, '../../deploy')
const folder = mkdtempSync(join(tmpdir(), 'pgws-systemd-'))
const unit = join(folder, 'postgres-websockets.service')

beforeAll(() => {
  // The unit as it is, but for where the binary lies on this machine.
  const text = readFileSync(join(deploy, 'postgres-websockets.service'), 'utf8')
  writeFileSync(unit, text.replaceAll('/usr/local/bin/postgres-websockets', binary))
})
afterAll(() => rmSync(folder, { recursive: true }))

const analyze = (...args: string[]) =>
  spawnSync('systemd-analyze', args, { encoding: 'utf8', env: { ...process.env, SYSTEMD_COLORS: '0' } })

test('systemd accepts the unit without a word', () => {
  const { status, stdout, stderr } = analyze('verify', unit)
  expect({ status, output: stdout + stderr }).toEqual({ status: 0, output: '' })
})

test('systemd finds its exposure below 2.0', () => {
  const { status, stdout } = analyze('security', '--offline=true', '--threshold=20', unit)
  expect(Number(/Overall exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1])).toBeLessThan(2)
  expect(status).toBe(0)
})

test('its environment file holds no secret, no password and no relative path, and lacks only what nobody else can know', () => {
  const variables = parseEnvFile(readFileSync(join(deploy, 'postgres-websockets.env'), 'utf8'))
  for (const name of ['PGWS_DB_URI', 'PGWS_JWT_SECRET', 'PGWS_ROOT_PATH']) expect(variables).not.toHaveProperty(name)
  expect(Object.values(variables).filter((value) => value?.startsWith('.'))).toEqual([])
  expect(parse(variables, readFileSync, 'me')).toMatchObject({
    faults: [expect.stringContaining('PGWS_DB_URI'), expect.stringContaining('PGWS_JWT_SECRET')],
  })
  const own = { PGWS_DB_URI: 'dbname=app', PGWS_JWT_SECRET: 'a secret of at least 32 bytes, which you make yourself' }
  expect(parse({ ...variables, ...own }, readFileSync, 'me')).not.toHaveProperty('faults')
})
