/** Owns IP addresses and networks: how they are read, and which address is in which network. Pure. */

export interface Network {
  /** The bits that all its addresses begin with. */
  readonly prefix: bigint
  /** How many of the 128 bits follow, which may have any value. */
  readonly free: bigint
}

/** The bits before an IPv4 address that is mapped into IPv6 (RFC 4291 section 2.5.5.2). */
const MAPPED = 0xffff_0000_0000n

const V4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.|$)){4}(?<!\.)$/

/**
 * The 128 bits of an address. An IPv4 address is mapped into IPv6, so that both are compared alike.
 *
 * @returns undefined where the text is not an address.
 */
export function readAddress(text: string): bigint | undefined {
  if (V4.test(text)) return text.split('.').reduce((bits, part) => bits * 256n + BigInt(part), 0n) + MAPPED
  const url = `http://[${text}]`
  if (!/^[\da-f:.]+$/i.test(text) || !URL.canParse(url)) return undefined
  // A URL shows an address in one form: hexadecimal groups, of which the longest run of zeros is left out.
  const [left = '', right = ''] = new URL(url).hostname.slice(1, -1).split('::')
  const groups = (half: string): string[] => (half === '' ? [] : half.split(':'))
  const [before, after] = [groups(left), groups(right)]
  const zeros = new Array<string>(8 - before.length - after.length).fill('0')
  return [...before, ...zeros, ...after].reduce((bits, group) => bits * 65_536n + BigInt(`0x${group}`), 0n)
}

/**
 * Reads `10.0.0.0/8`, `fd00::/8`, or an address, which is a network of one.
 *
 * @returns undefined where the text is neither.
 */
export function readNetwork(text: string): Network | undefined {
  const [, address = '', length] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  const bits = readAddress(address)
  const most = address.includes(':') ? 128 : 32
  if (bits === undefined || Number(length ?? most) > most) return undefined
  const free = BigInt(most - Number(length ?? most))
  return { prefix: bits >> free, free }
}

export const isInside = (address: bigint, networks: readonly Network[]): boolean =>
  networks.some(({ prefix, free }) => address >> free === prefix)
