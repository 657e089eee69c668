/** Owns which of the database's channels are followed: each is listened to while somebody here reads it. */

import type { Broker } from '../../channels/broker.ts'
import { CHANNEL_BYTES } from '../../config/values.ts'
import { refuse } from '../../refusal.ts'
import type { Listener } from './listener.ts'
import { CHECK_PREFIX } from './round-trip.ts'

export interface FollowedChannels extends Pick<Broker, 'follow' | 'unfollow'> {
  /** What the next LISTEN session is to listen to. */
  readonly names: readonly string[]
  /** PostgreSQL does not listen to this one. */
  remove(channel: string): void
}

export interface FollowedOptions {
  /** Whether the database's channel of this name is delivered directly. */
  readonly isDirect: (channel: string) => boolean
  /** The most channels that are followed at once. */
  readonly most: number
  /** The present session. Without one, the next listens to all. */
  readonly listener: () => Listener | undefined
}

export function createFollowedChannels({ isDirect, most, listener }: FollowedOptions): FollowedChannels {
  const followed = new Set<string>()

  async function listenOn(session: Listener, channel: string): ReturnType<Listener['listen']> {
    const refusal = await session.listen(channel)
    if (refusal) followed.delete(channel)
    return refusal
  }

  return {
    get names() {
      return [...followed]
    },
    remove: (channel) => void followed.delete(channel),
    follow(channel) {
      if (!isChannelName(channel) || !isDirect(channel)) return undefined
      if (followed.size >= most) return Promise.resolve(refuse('TOO_MANY_CHANNELS'))
      followed.add(channel)
      const session = listener()
      return session ? listenOn(session, channel) : Promise.resolve(undefined)
    },
    unfollow(channel) {
      if (followed.delete(channel)) listener()?.unlisten(channel)
    },
  }
}

/** Whether a name can be listened to, and is not that of a check. */
const isChannelName = (name: string): boolean =>
  name !== '' && !name.includes('\0') && Buffer.byteLength(name) <= CHANNEL_BYTES && !name.startsWith(CHECK_PREFIX)
