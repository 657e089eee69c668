/**
 * Owns what a verified token allows. Its claims become a permit, once for each token. The permit and the channel that was asked for
 * become a grant or a refusal, once for each connection. Pure: the time is a parameter.
 */
import { isRefusal, type Refusal, refuse } from '../refusal.ts'

/** The claims of a verified token: parsed, and as they stand in the token. */
export interface Claims {
  readonly values: Readonly<Record<string, unknown>>
  /** The JSON object as the issuer wrote it. */
  readonly text: string
}

/** What a token says, no matter who brings it, and when. */
export interface Permit {
  /** The token's claims as they stand in it. */
  readonly claims: string
  /** UNIX time in milliseconds from which the token is valid, with the leeway subtracted. */
  readonly startsAt: number
  /** UNIX time in milliseconds at which it ends; `Infinity` when the token names no end. */
  readonly expiresAt: number
  /** A refusal where the token is genuine but allows nothing here. */
  readonly rights: Rights | Refusal
}

export type Mode = 'r' | 'w' | 'rw'

/** What was decided of one channel, beside what the token says: what may be done there, or why that is not known. */
export type Decision = Mode | 'no' | Undecided

export type Undecided = 'ROLE_NOT_ALLOWED' | 'AUTHORITY_UNAVAILABLE'

interface Rights {
  readonly mode: Mode
  /** The channels that the token names; undefined where it names none, which allows any. */
  readonly named: readonly string[] | undefined
  /** The role under which the database is asked for it; undefined for that of the server. */
  readonly role: string | undefined
}

/** What one connection may do. */
export interface Grant extends Rights {
  /** The channels it is on from the start; at least one, unless it asked for none. */
  readonly channels: readonly string[]
  readonly canRead: boolean
  readonly canWrite: boolean
  /** The token's claims as they stand in it. */
  readonly claims: string
  /** UNIX time in milliseconds at which the grant ends; `Infinity` when the token names no end. */
  readonly expiresAt: number
  /**
   * What was decided of each channel of this connection; a channel that is not there is not allowed, or not asked about yet. Undefined
   * where only tokens decide.
   */
  readonly rights?: Map<string, Mode>
}

/** What a server asks of tokens beyond their signature. */
export interface Policy {
  /** Required `aud`; undefined checks none. */
  readonly audience?: string | undefined
  /** Required `iss`; undefined checks none. */
  readonly issuer?: string | undefined
  readonly modeClaim: string
  readonly channelsClaim: string
  /** The claim that holds the role, which a token must then have; undefined asks for none. */
  readonly roleClaim?: string | undefined
}

const defaultPolicy: Policy = { modeClaim: 'mode', channelsClaim: 'channels' }

/** Clocks of issuer and server may differ by this many seconds before `nbf` and `iat` refuse a token. */
const LEEWAY_SECONDS = 30

/**
 * Reads what a token says.
 *
 * @returns the permit; a 401 refusal where a time in it is no number (RFC 7519 section 4.1.4 to 4.1.6).
 */
export function readPermit({ values, text }: Claims, policy: Policy = defaultPolicy): Permit | Refusal {
  const { exp = Number.POSITIVE_INFINITY, nbf = 0, iat = 0 } = values
  if (typeof exp !== 'number' || typeof nbf !== 'number' || typeof iat !== 'number') return refuse('TOKEN_MALFORMED')
  return {
    claims: text,
    startsAt: (Math.max(nbf, iat) - LEEWAY_SECONDS) * 1000,
    expiresAt: exp * 1000,
    rights: readRights(values, policy),
  }
}

function readRights(values: Claims['values'], policy: Policy): Rights | Refusal {
  const { audience, issuer, modeClaim, channelsClaim, roleClaim } = policy
  if (audience !== undefined && ![values.aud].flat().includes(audience)) return refuse('AUDIENCE_WRONG')
  if (issuer !== undefined && values.iss !== issuer) return refuse('ISSUER_WRONG')
  // A configured name may be that of a property that every object inherits, such as "constructor".
  const claim = (name: string): unknown => (Object.hasOwn(values, name) ? values[name] : undefined)
  const mode = claim(modeClaim)
  if (mode === undefined) return refuse('MODE_MISSING')
  if (mode !== 'r' && mode !== 'w' && mode !== 'rw') return refuse('MODE_UNKNOWN')
  const role = roleClaim === undefined ? undefined : roleIn(claim(roleClaim))
  if (roleClaim !== undefined && role === undefined) return refuse('ROLE_MISSING')
  const named = namedChannels(values.channel, claim(channelsClaim))
  return named?.length === 0 ? refuse('CHANNEL_NOT_ALLOWED') : { mode, named, role }
}

/** The role that a claim names. PostgreSQL takes "none" for the role of the session: no role has that name. */
const roleIn = (value: unknown): string | undefined =>
  typeof value === 'string' && !['', 'none'].includes(value) && value.isWellFormed() && !value.includes('\0') ? value : undefined

/**
 * Decides what a permit allows on the channel asked for.
 *
 * @param asked the channel's path segment as it stands in the URL, or undefined to open all that the token names.
 * @param now UNIX time in milliseconds.
 * @param subscribes whether it is on its channels from the start. If not, a token that names none needs none to be asked for.
 * @returns the grant; a 401 refusal where the token has expired or is not valid yet; a 403 refusal where it does not allow what was asked
 *   for.
 */
export function grant(
  { claims, startsAt, expiresAt, rights }: Permit,
  asked: string | undefined,
  now: number,
  subscribes = true,
): Grant | Refusal {
  if (now >= expiresAt) return refuse('TOKEN_EXPIRED')
  if (now < startsAt) return refuse('TOKEN_NOT_YET_VALID')
  if (isRefusal(rights)) return rights
  const { mode, named, role } = rights
  const channels = asked !== undefined ? allowedChannel(named, asked) : subscribes ? named : NO_CHANNELS
  if (channels === undefined) return refuse('CHANNEL_NOT_ALLOWED')
  return {
    channels: subscribes ? channels : NO_CHANNELS,
    mode,
    named,
    role,
    canRead: mode !== 'w',
    canWrite: mode !== 'r',
    claims,
    expiresAt,
  }
}

const NO_CHANNELS: readonly string[] = []

/** Whether a grant lets its connection use a channel, beside those it is on from the start. */
export const allows = ({ named }: Grant, channel: string): boolean => named === undefined || named.includes(channel)

/** Whether a grant lets its connection read a channel that its token allows. */
export const canRead = ({ canRead, rights }: Grant, channel: string): boolean =>
  canRead && (rights === undefined || rights.get(channel)?.includes('r') === true)

/** Whether a grant lets its connection write to a channel that its token allows. */
export const canWrite = ({ canWrite, rights }: Grant, channel: string): boolean =>
  canWrite && (rights === undefined || rights.get(channel)?.includes('w') === true)

/** Those of the channels that may be read. */
export function readable(grant: Grant, channels = grant.channels): readonly string[] {
  if (!grant.canRead) return NO_CHANNELS
  return grant.rights === undefined ? channels : channels.filter((channel) => canRead(grant, channel))
}

/** Those of its channels that may be written to. */
export function writable(grant: Grant): readonly string[] {
  if (!grant.canWrite) return NO_CHANNELS
  return grant.rights === undefined ? grant.channels : grant.channels.filter((channel) => canWrite(grant, channel))
}

export const isMode = (decision: Decision | undefined): decision is Mode =>
  decision === 'r' || decision === 'w' || decision === 'rw'

export const isUndecided = (decision: Decision | undefined): decision is Undecided =>
  decision === 'ROLE_NOT_ALLOWED' || decision === 'AUTHORITY_UNAVAILABLE'

/**
 * Narrows a grant to what was decided. It is never widened.
 *
 * @param decisions one for each of its channels.
 * @returns a refusal where a decision is missing, or none of its channels is left.
 */
export function narrowed(allowed: Grant, decisions: readonly Decision[]): Grant | Refusal {
  const undecided = decisions.find(isUndecided)
  if (undecided) return refuse(undecided)
  const rights = new Map<string, Mode>()
  allowed.channels.forEach((channel, index) => {
    const decision = decisions[index]
    if (isMode(decision)) rights.set(channel, decision)
  })
  const left = { ...allowed, rights }
  const channels = allowed.channels.filter((channel) => canRead(left, channel) || canWrite(left, channel))
  return channels.length === 0 && allowed.channels.length > 0 ? refuse('CHANNEL_NOT_ALLOWED') : { ...left, channels }
}

/** The channel that was asked for, where the token names it or names none. */
function allowedChannel(named: readonly string[] | undefined, asked: string): readonly [string] | undefined {
  if (named?.includes(asked)) return [asked]
  const decoded = decodeSegment(asked)
  if (!decoded.isWellFormed()) return undefined
  return named === undefined || named.includes(decoded) ? [decoded] : undefined
}

/** The channels that the two claims name together, `channel` first; undefined when the token has neither claim. */
function namedChannels(channel: unknown, channels: unknown): readonly string[] | undefined {
  if (channel === undefined && channels === undefined) return undefined
  // UTF-8 turns every lone surrogate into the same character: different names would be one channel.
  const isName = (value: unknown): value is string => typeof value === 'string' && value !== '' && value.isWellFormed()
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
