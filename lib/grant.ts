/**
 * Owns what a verified token allows: claims and the asked channel become a grant or a refusal. Pure; the time is a parameter.
 */
import { type Refusal, refuse } from './refusal.ts'

/** The claims of a verified token: parsed, and as they stand in the token. */
export interface Claims {
  readonly values: Readonly<Record<string, unknown>>
  /** The JSON object as the issuer wrote it. */
  readonly text: string
}

/** What one connection may do. */
export interface Grant {
  /** The channels it is on; at least one. */
  readonly channels: readonly string[]
  readonly canRead: boolean
  readonly canWrite: boolean
  /** The token's claims as they stand in it. */
  readonly claims: string
  /** UNIX time in milliseconds at which the grant ends; `Infinity` when the token names no end. */
  readonly expiresAt: number
}

/** What a server asks of tokens beyond their signature. */
export interface Policy {
  /** Required `aud`; undefined checks none. */
  readonly audience?: string | undefined
  /** Required `iss`; undefined checks none. */
  readonly issuer?: string | undefined
  readonly modeClaim: string
  readonly channelsClaim: string
}

export const defaultPolicy: Policy = { modeClaim: 'mode', channelsClaim: 'channels' }

/** Clocks of issuer and server may differ by this many seconds before `nbf` and `iat` refuse a token. */
const LEEWAY_SECONDS = 30

/**
 * Decides what a token allows on the channel asked for.
 *
 * @param asked the channel's path segment as it stands in the URL, or undefined to open all that the token names.
 * @param now UNIX time in milliseconds.
 * @returns the grant; a 401 refusal where the token's time is not now (RFC 7519 section 4.1.4 to 4.1.6), a 403 one where the
 *   token is good but does not allow what was asked.
 */
export function grant(claims: Claims, asked: string | undefined, now: number, policy: Policy = defaultPolicy): Grant | Refusal {
  const claim = (name: string): unknown => (Object.hasOwn(claims.values, name) ? claims.values[name] : undefined)

  const { exp = Number.POSITIVE_INFINITY, nbf = 0, iat = 0 } = { exp: claim('exp'), nbf: claim('nbf'), iat: claim('iat') }
  if (typeof exp !== 'number' || typeof nbf !== 'number' || typeof iat !== 'number') return refuse('TOKEN_MALFORMED')
  const seconds = now / 1000
  if (seconds >= exp) return refuse('TOKEN_EXPIRED')
  if (nbf > seconds + LEEWAY_SECONDS || iat > seconds + LEEWAY_SECONDS) return refuse('TOKEN_NOT_YET_VALID')

  const { audience, issuer, modeClaim, channelsClaim } = policy
  if (audience !== undefined && ![claim('aud')].flat().includes(audience)) return refuse('AUDIENCE_WRONG')
  if (issuer !== undefined && claim('iss') !== issuer) return refuse('ISSUER_WRONG')

  const mode = claim(modeClaim)
  if (mode === undefined) return refuse('MODE_MISSING')
  if (mode !== 'r' && mode !== 'w' && mode !== 'rw') return refuse('MODE_UNKNOWN')

  const channels = allowedChannels(claim('channel'), claim(channelsClaim), asked)
  if (channels.length === 0) return refuse('CHANNEL_NOT_ALLOWED')

  return {
    channels,
    canRead: mode !== 'w',
    canWrite: mode !== 'r',
    claims: claims.text,
    expiresAt: exp * 1000,
  }
}

/** The channels to open: all that are named, or the asked one where it is among them or none are named. */
function allowedChannels(channel: unknown, channels: unknown, asked: string | undefined): readonly string[] {
  const named = namedChannels(channel, channels)
  if (asked === undefined) return named ?? []
  if (named?.includes(asked)) return [asked]
  const decoded = decodeSegment(asked)
  return named === undefined || named.includes(decoded) ? [decoded] : []
}

/** The channels that the two claims name together, `channel` first; undefined when the token has neither claim. */
function namedChannels(channel: unknown, channels: unknown): readonly string[] | undefined {
  if (channel === undefined && channels === undefined) return undefined
  const isName = (value: unknown): value is string => typeof value === 'string' && value !== ''
  if (channel !== undefined && !isName(channel)) return []
  if (channels !== undefined && !(Array.isArray(channels) && channels.every(isName))) return []
  const single = channel === undefined ? [] : [channel]
  const list = channels === undefined ? [] : channels
  return [...new Set([...single, ...list])]
}

function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment // A malformed encoding is the name itself.
  }
}
