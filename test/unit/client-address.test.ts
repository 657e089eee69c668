import { describe, expect, test } from 'bun:test'
import { isInside, readAddress, readNetwork } from '../../lib/config/networks.ts'
import { clientAddress } from '../../lib/doors/client-address.ts'

const networks = (...texts: string[]) =>
  texts.map((text) => {
    const network = readNetwork(text)
    if (!network) throw new Error(text)
    return network
  })

const isIn = (address: string, network: string): boolean => isInside(readAddress(address) ?? -1n, networks(network))

describe('a network', () => {
  test.each([
    ['10.0.0.0/8', '10.255.0.1', '11.0.0.1'],
    ['10.1.2.3/8', '10.255.0.1', '9.255.255.255'],
    ['192.0.2.7', '192.0.2.7', '192.0.2.8'],
    ['192.0.2.128/25', '192.0.2.128', '192.0.2.127'],
    ['0.0.0.0/0', '255.255.255.255', '2001:db8::1'],
    ['fd00::/8', 'fdff::1', 'fe00::1'],
    ['2001:db8::1', '2001:DB8:0:0:0::1', '2001:db8::2'],
    ['::1', '::1', '::2'],
    ['10.0.0.0/8', '::ffff:10.0.0.1', '::ffff:11.0.0.1'],
    ['::ffff:10.0.0.0/104', '10.1.1.1', '11.1.1.1'],
    ['::/0', '203.0.113.1', 'none'],
  ])('%s has %s and not %s', (network, inside, outside) => {
    expect([isIn(inside, network), isIn(outside, network)]).toEqual([true, false])
  })
  test.each([
    '10.0.0.0/33',
    '::/129',
    '10.0.0',
    '10.0.0.256',
    '010.0.0.1',
    '10.0.0.0/',
    '/8',
    '10.0.0.0/8/8',
    'localhost',
    'fd00::/-1',
    ':::',
    '1:2:3:4:5:6:7:8:9',
    '10.0.0.1.',
    '10.0.0.0/x',
    'fe80::1%eth0',
    '1.2.3.4:80',
  ])('is not written %s', (text) => {
    expect(readNetwork(text)).toBeUndefined()
  })
})

describe('the address of a client', () => {
  const trusted = networks('127.0.0.1', '10.0.0.0/8', 'fd00::/8')
  test.each([
    ['203.0.113.1', null, '203.0.113.1'],
    ['::ffff:203.0.113.1', null, '203.0.113.1'],
    ['fe80::1%eth0', null, 'fe80::1'],
    // Anybody can send the header.
    ['203.0.113.1', '192.0.2.1', '203.0.113.1'],
    ['127.0.0.1', '192.0.2.1', '192.0.2.1'],
    ['::ffff:127.0.0.1', '192.0.2.1', '192.0.2.1'],
    ['127.0.0.1', '198.51.100.66, 192.0.2.1', '192.0.2.1'],
    ['127.0.0.1', '198.51.100.66, 192.0.2.1, 10.1.1.1,fd00::2', '192.0.2.1'],
    ['127.0.0.1', '10.1.1.1, 10.1.1.2', '10.1.1.1'],
    ['127.0.0.1', '192.0.2.1:4711', '192.0.2.1'],
    ['127.0.0.1', '[2001:db8::1]:4711', '2001:db8::1'],
    ['127.0.0.1', '[2001:db8::1]', '2001:db8::1'],
    ['127.0.0.1', '2001:db8::1', '2001:db8::1'],
    ['127.0.0.1', '192.0.2.1, [fd00::2]:1, ::ffff:10.0.0.1', '192.0.2.1'],
    ['127.0.0.1', '192.0.2.1, unknown, 10.0.0.1', '10.0.0.1'],
    ['127.0.0.1', '', '127.0.0.1'],
    ['127.0.0.1', ' , ,', '127.0.0.1'],
    ['127.0.0.1', 'evil\u001b[2J', '127.0.0.1'],
    ['', '192.0.2.1', ''],
  ])('of the peer %p, with X-Forwarded-For %p, is %s', (peer, forwarded, expected) => {
    expect(clientAddress(peer, forwarded, trusted)).toBe(expected)
  })
})
