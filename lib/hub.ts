/** Owns which channels have readers here, and hands a notification to a channel's readers. */

export interface Hub {
  /** A reader joins the channel. */
  join(channel: string): void
  leave(channel: string): void
  /** Hands a text to all readers of a channel as it is. */
  deliver(channel: string, text: string): void
}

/**
 * @param publish hands a text to every socket that is subscribed to the topic; a channel's topic is its name.
 */
export function createHub(publish: (topic: string, text: string) => void): Hub {
  const readers = new Map<string, number>()
  return {
    join(channel) {
      readers.set(channel, (readers.get(channel) ?? 0) + 1)
    },
    leave(channel) {
      const left = (readers.get(channel) ?? 0) - 1
      if (left > 0) readers.set(channel, left)
      else readers.delete(channel)
    },
    deliver(channel, text) {
      if (readers.has(channel)) publish(channel, text)
    },
  }
}
