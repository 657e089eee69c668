import { expect, test } from 'bun:test'
import { bindFirst } from '../../lib/runtime/address.ts'

/** Where a form of PGWS_HOST binds on a machine that has only some addresses, and what it tried. */
async function bind(host: string, has: readonly string[], code = 'EADDRNOTAVAIL') {
  const tried: string[] = []
  const bound = await bindFirst(host, (hostname, ipv6Only) => {
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
  ['!4', ['::'], 'no 0.0.0.0'],
  ['*6', both, '::'],
  ['!6', both, '::'],
  ['!6', ['0.0.0.0'], 'no ::'],
  ['127.0.0.1', ['127.0.0.1'], '127.0.0.1'],
])('%s on a machine with %j binds %s', async (host, has, bound) => expect((await bind(host, has)).bound).toBe(bound))

test('!6 takes no IPv4 on the same socket, and * does', async () => {
  expect((await bind('!6', both)).tried).toEqual([':: only'])
  expect((await bind('*6', both)).tried).toEqual(['::'])
})

test('a port that is taken is not looked for on another address', async () => {
  expect(await bind('*', [], 'EADDRINUSE')).toEqual({ bound: 'no ::', tried: ['::'] })
  expect(await bind('*', [])).toEqual({ bound: 'no 0.0.0.0', tried: both })
})
