/** Owns which channels have readers here, and hands a notification to a channel's readers. */

import type { Refusal } from '../refusal.ts'

export interface Hub {
  /**
   * A reader joins a channel.
   *
   * @returns a promise where the database's channel of that name is to be listened to first; it settles when that stands, with a
   *   refusal where it cannot be.
   */
  join(channel: string): Promise<Refusal | undefined> | undefined
  leave(channel: string): void
  /** Hands a text to all readers of a channel as it is. @returns how many there are. */
  deliver(channel: string, text: string): number
}

export interface HubOptions {
  /** Hands a text to every socket that is subscribed to the topic; a channel's topic is its name. */
  readonly publish: (topic: string, text: string) => void
  /** Whether the database's channel of this name is received directly. */
  readonly isDirect: (channel: string) => boolean
  readonly listen: (channel: string) => Promise<Refusal | undefined>
  readonly unlisten: (channel: string) => void
}

interface Readers {
  count: number
  /** Settled when LISTEN stands, or with the refusal for as long as there is an entry. Undefined where it stands, or is not needed. */
  listening: Promise<Refusal | undefined> | undefined
}

export function createHub({ publish, isDirect, listen, unlisten }: HubOptions): Hub {
  const channels = new Map<string, Readers>()
  return {
    join(channel) {
      const known = channels.get(channel)
      if (known) {
        known.count++
        return known.listening
      }
      const readers: Readers = { count: 1, listening: undefined }
      channels.set(channel, readers)
      if (isDirect(channel)) {
        readers.listening = listen(channel).then((refusal) => {
          // Who was refused may still wait for another channel, and who joins meanwhile must not be taken for a reader of this one.
          if (refusal === undefined) readers.listening = undefined
          return refusal
        })
      }
      return readers.listening
    },
    leave(channel) {
      const readers = channels.get(channel)
      if (!readers || --readers.count > 0) return
      channels.delete(channel)
      if (isDirect(channel)) unlisten(channel)
    },
    deliver(channel, text) {
      const readers = channels.get(channel)
      if (!readers) return 0
      publish(channel, text)
      return readers.count
    },
  }
}

/** Whether a name matches one of the patterns, in which `*` stands for any text. */
export function createMatcher(patterns: readonly string[]): (name: string) => boolean {
  const expressions = patterns.map((pattern) => new RegExp(`^${pattern.split('*').map(RegExp.escape).join('[\\s\\S]*')}$`, 'u'))
  return (name) => expressions.some((expression) => expression.test(name))
}
