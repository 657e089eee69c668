/** Owns the log's lines about clients, each of which says who it is. */
import type { Grant } from '../access/grant.ts'
import type { Fields, Log } from '../log.ts'
import { shown, shownChannels } from '../shown.ts'
import { members } from './json.ts'

/** What the log and the events say of a client. */
export interface Identity {
  /** Names the client in log lines and events. */
  readonly id: string
  /** Where it comes from. */
  readonly address: string
  /** Those that it is on. */
  readonly channels: readonly string[]
  readonly grant: Pick<Grant, 'mode' | 'claims'>
}

/** How a connection ends. */
export interface End {
  readonly code: number
  readonly reason: string
}

export interface ClientLog {
  opened(client: Identity): void
  /** It goes on under another token. */
  renewed(client: Identity): void
  ignoring(client: Identity): void
  /** The server sends a close frame. */
  closing(client: Identity, end: End): void
  /** The server ends the connection without a close frame. */
  dropping(client: Identity, fault: string): void
  closed(client: Identity, end: End & { readonly seconds: number }): void
}

const ID_LENGTH = 8

/** Random, so that ids differ between servers and after a restart. */
export const createId = (): string =>
  Math.floor(Math.random() * 36 ** ID_LENGTH)
    .toString(36)
    .padStart(ID_LENGTH, '0')

/** The fields that say which client a line is about. */
export const identified = ({ id, address, channels }: Identity): Fields => ({
  client: id,
  address,
  channels: shownChannels(channels),
})

/** @param claim the claim that says in the log who a client is; undefined shows none. */
export function createClientLog(log: Log, claim: string | undefined): ClientLog {
  function claimed({ grant }: Identity): Fields {
    const value = claim === undefined ? undefined : members(grant.claims).get(claim)
    if (claim === undefined || value === undefined) return {}
    // A JSON string parses to a string. Any other value is shown as it stands in the token.
    return { [claim]: shown(value.startsWith('"') ? (JSON.parse(value) as string) : value) }
  }

  const introduced = (client: Identity): Fields => ({
    ...identified(client),
    mode: client.grant.mode,
    ...claimed(client),
  })

  return {
    opened: (client) => log.info('client opened', () => introduced(client)),
    renewed: (client) => log.info('client renewed its token', () => introduced(client)),
    ignoring: (client) => log.info('ignoring what a client sends whose token does not let it write', () => identified(client)),
    closing: (client, { code, reason }) => log.debug('closing a client', () => ({ ...identified(client), code, reason })),
    dropping: (client, fault) => log.info(`dropped a client that ${fault}`, () => identified(client)),
    closed: (client, { code, reason, seconds }) =>
      log.info('client closed', () => ({
        ...identified(client),
        code,
        reason: shown(reason),
        seconds: Math.round(seconds * 1000) / 1000,
        ...claimed(client),
      })),
  }
}
