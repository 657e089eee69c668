/** Owns which address a client has: that of its connection, or the one that trusted proxies report. Pure. */
import { isInside, type Network, readAddress } from '../config/networks.ts'

/**
 * The rightmost address that is not trusted. Its owner may have made up everything to the left of it.
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
    // This is not an address, so the last known one is that of the proxy that passed it on.
    if (readAddress(next) === undefined) break
    address = next
  }
  return address
}

/** Without the port, and without the brackets around an IPv6 address. */
function addressOf(entry: string): string {
  const [, bracketed, dotted] = /^\[([^\]]*)\](?::\d+)?$|^([\d.]+):\d+$/.exec(entry) ?? []
  return plain(bracketed ?? dotted ?? entry)
}

/** Without the zone of a link-local address. An IPv4 address that is mapped into IPv6 is shown as IPv4. */
const plain = (address: string): string => address.replace(/%.*$/, '').replace(/^::ffff:(?=\d+\.)/i, '')
