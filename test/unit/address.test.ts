import { expect, test } from 'bun:test'
import { bindFirst } from '../../lib/runtime/address.ts'

/** Where a form of PGWS_HOST binds on a machine that has only some addresses, and what it tried. */
async function bind(host: string, has: readonly string[], code = 'EADDRNOTAVAIL') {
  const tried: string[] = []
  const bound = await bindFirst({ host, port: 7 }, (hostname, ipv6Only) => {
    tried.push(ipv6Only ? `${hostname} only` : hostname)
    if (!has.includes(hostname)) throw Object.assign(new Error(`no ${hostname}`), { code })
    return hostname
  }).catch((error: Error) => error.message)
  return { bound, tried }
}

const both = ['::', '0.0.0.0']

test.each([
  ['*', both, '::'],
  ['*', ['0.0.0.0'], '0.0.0.0'],
  ['*4', both, '0.0.0.0'],
  ['*4', ['::'], '::'],
  ['!4', both, '0.0.0.0'],
  ['!4', ['::'], 'port 7 on !4: the address is none of this machine'],
  ['*6', both, '::'],
  ['!6', both, '::'],
  ['!6', ['0.0.0.0'], 'port 7 on !6: the address is none of this machine'],
  ['127.0.0.1', ['127.0.0.1'], '127.0.0.1'],
])('%s on a machine with %j binds %s', async (host, has, bound) => expect((await bind(host, has)).bound).toBe(bound))

test('!6 takes no IPv4 on the same socket, and * does', async () => {
  expect((await bind('!6', both)).tried).toEqual([':: only'])
  expect((await bind('*6', both)).tried).toEqual(['::'])
})

test('a port that is taken is not looked for on another address', async () => {
  expect(await bind('*', [], 'EADDRINUSE')).toEqual({ bound: 'port 7 on *: it is in use', tried: ['::'] })
  expect(await bind('*', [])).toEqual({ bound: 'port 7 on *: the address is none of this machine', tried: both })
})

test('a name without an address is said to be one, and nothing is bound', async () => {
  expect(await bind('name.invalid', ['name.invalid'])).toEqual({
    bound: 'port 7 on name.invalid: the name has no address',
    tried: [],
  })
})
