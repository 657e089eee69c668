/** Owns what a client that sends commands may beyond what its token says: the authority is asked as it goes along. */

import { allows, type Decision, type Grant, isMode, isUndecided } from '../access/grant.ts'
import { type Refusal, refuse } from '../refusal.ts'
import { inTick } from '../waiting.ts'
import type { Authority } from './authority.ts'

/** What each session keeps for this. */
export interface Deciding {
  grant: Grant
  /** Those that it reads. */
  readonly channels: readonly string[]
  readonly conversation: { readonly joining: readonly { readonly channel: string }[] } | undefined
}

export interface Rights<S> {
  /** Asks what it may on a channel that its token allows. @returns undefined where that says nothing of its present grant. */
  ask(session: S, channel: string): Decision | undefined | Promise<Decision | undefined>
  /** Another grant of it, with what is decided of the channels that it reads or is about to read. */
  renew(session: S, granted: Grant): Grant | Refusal | Promise<Grant | Refusal>
}

/** Channels whose decision is kept beside those that a client reads. */
const BESIDE = 100

export function createRights<S extends Deciding>(authority: Authority | undefined): Rights<S> {
  return {
    ask(session, channel) {
      const { grant } = session
      if (!authority) return undefined
      return inTick(authority.decide(grant, [channel]), ([decision]) => {
        if (session.grant !== grant) return undefined
        keep(session, channel, decision)
        return decision
      })
    },
    renew(session, granted) {
      const asked = new Set<string>()
      const next = (): Grant | Refusal | Promise<Grant | Refusal> => {
        if (!authority) return granted
        const channels = read(session).filter((channel) => granted.canRead && allows(granted, channel) && !asked.has(channel))
        if (channels.length === 0) return granted
        for (const channel of channels) asked.add(channel)
        return inTick(authority.decide(granted, channels, true), (decisions) => {
          const undecided = decisions.find(isUndecided)
          if (undecided) return refuse(undecided)
          for (const [index, channel] of channels.entries()) {
            const decision = decisions[index]
            if (isMode(decision)) granted.rights?.set(channel, decision)
          }
          // It may have subscribed to more meanwhile.
          return next()
        })
      }
      return next()
    },
  }
}

const read = ({ channels, conversation }: Deciding): readonly string[] => [
  ...new Set([...channels, ...(conversation?.joining ?? []).map(({ channel }) => channel)]),
]

function keep(session: Deciding, channel: string, decision: Decision | undefined): void {
  const { rights } = session.grant
  if (rights === undefined || isUndecided(decision)) return
  rights.delete(channel)
  if (!isMode(decision)) return
  rights.set(channel, decision)
  const reading = read(session)
  if (rights.size <= reading.length + BESIDE) return
  const [oldest] = [...rights.keys()].filter((name) => name !== channel && !reading.includes(name))
  if (oldest !== undefined) rights.delete(oldest)
}
