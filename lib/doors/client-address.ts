/** Owns which address a client has: that of its connection, or the one that trusted proxies say. Pure. */
import { isInside, type Network, readAddress } from '../config/networks.ts'

/**
 * The rightmost address that is not trusted. What stands to the left of that, its owner may have made up.
 *
 * @param peer the address that the connection comes from.
 * @param forwarded the value of `X-Forwarded-For`, several headers joined by commas.
 */
export function clientAddress(peer: string, forwarded: string | null, trusted: readonly Network[]): string {
  let address = plain(peer)
  if (forwarded === null) return address
  for (const entry of forwarded.split(',').reverse()) {
    const bits = readAddress(address)
    if (bits === undefined || !isInside(bits, trusted)) break
    const next = addressOf(entry.trim())
    // What is no address names nobody; the proxy that passed it on is the last that is known.
    if (readAddress(next) === undefined) break
    address = next
  }
  return address
}

/** Less the port, and the brackets that an address of IPv6 has with a port. */
function addressOf(entry: string): string {
  const [, bracketed, dotted] = /^\[([^\]]*)\](?::\d+)?$|^([\d.]+):\d+$/.exec(entry) ?? []
  return plain(bracketed ?? dotted ?? entry)
}

/** Without the interface of a link-local address, and an IPv4 one as such where the socket takes both kinds. */
const plain = (address: string): string => address.replace(/%.*$/, '').replace(/^::ffff:(?=\d+\.)/i, '')
