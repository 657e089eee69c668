import { expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { resolve } from 'node:path'
import { connect } from '../../client-example/postgres-websockets.js'

const root = resolve(import.meta.dir, '../..')

test('the types of the client module take what an application writes, and refuse what would fail', () => {
  const flags = '--noEmit --strict --exactOptionalPropertyTypes --module preserve --target esnext --lib esnext,dom --types'.split(
    ' ',
  )
  const files = ['client-example/postgres-websockets.d.ts', 'test/fixtures/client-types.ts']
  const checked = spawnSync('node_modules/.bin/tsc', ['--ignoreConfig', ...flags, '', ...files], { cwd: root, encoding: 'utf8' })
  expect({ status: checked.status, said: checked.stdout + checked.stderr }).toEqual({ status: 0, said: '' })
})

test('a client has the members that its type names', () => {
  const client = connect('ws://127.0.0.1:1/', { getToken: () => new Promise<string>(() => undefined) })
  client.close()
  // The compiler holds that these are all of them.
  const members: Record<keyof typeof client, true> = { state: true, subscribe: true, publish: true, on: true, close: true }
  expect(Object.keys(client).sort()).toEqual(Object.keys(members).sort())
})
