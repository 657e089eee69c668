/** Owns which channels have readers on this server, and publishes a message to them once for each form. */

import type { Metrics } from '../metrics.ts'
import type { Refusal } from '../refusal.ts'
import type { Broker } from './broker.ts'
import type { Form } from './client.ts'

export interface Hub {
  /**
   * A reader joins a channel.
   *
   * @returns a promise where the broker is to follow the channel first; it settles when it does, with a refusal where it cannot.
   */
  join(channel: string, form: Form): Promise<Refusal | undefined> | undefined
  leave(channel: string, form: Form): void
  /** Beside its place among the readers: one that resumes gets what is in no history by itself. */
  readAlone(channel: string, reader: AloneReader): void
  readTogether(channel: string, reader: AloneReader): void
  /** Hands a message to all readers of its channel. */
  deliver(channel: string, text: string, position?: string): void
}

export interface AloneReader {
  readonly form: Form
  write(text: string): void
}

export interface HubOptions {
  readonly broker: Pick<Broker, 'follow' | 'unfollow'>
  readonly metrics: Metrics
  /** Called for each text that was handed to readers, with its bytes and the number of readers. */
  readonly handedOn: (bytes: number, readers: number) => void
}

interface Readers {
  /** The number of readers of each form. */
  forms: readonly FormReaders[]
  /** Those that resume; most channels never have one. */
  alone: Set<AloneReader> | undefined
  /** Settled when the broker follows the channel, or with the refusal for as long as there is an entry. Undefined where it does, or need not. */
  following: Promise<Refusal | undefined> | undefined
}

interface FormReaders {
  readonly form: Form
  readonly topic: string
  count: number
}

export function createHub({ broker, metrics, handedOn }: HubOptions): Hub {
  const channels = new Map<string, Readers>()
  /** Sums over the notifications of one read, which all arrive in one tick. */
  const read = { at: 0, notifications: 0, deliveries: 0, bytes: 0 }

  function record(): void {
    metrics.toSocket.observe((performance.now() - read.at) / 1000, read.notifications)
    metrics.notifications.add(read.notifications)
    metrics.delivered.add(read.deliveries)
    metrics.deliveredBytes.add(read.bytes)
    read.notifications = read.deliveries = read.bytes = 0
  }

  return {
    join(channel, form) {
      const known = channels.get(channel)
      if (known) {
        const same = known.forms.find((readers) => readers.form === form)
        if (same) same.count++
        else known.forms = [...known.forms, firstReader(form, channel)]
        return known.following
      }
      const readers: Readers = { forms: [firstReader(form, channel)], alone: undefined, following: undefined }
      channels.set(channel, readers)
      readers.following = broker.follow(channel)?.then((refusal) => {
        // A refused reader may still wait for another channel. Until it leaves, readers that join must be refused too.
        if (refusal === undefined) readers.following = undefined
        return refusal
      })
      return readers.following
    },
    leave(channel, form) {
      const known = channels.get(channel)
      const readers = known?.forms.find((same) => same.form === form)
      if (!known || !readers || --readers.count > 0) return
      // Another list, for it may be a message being delivered that makes the last reader of a form leave.
      known.forms = known.forms.filter((other) => other !== readers)
      if (known.forms.length > 0) return
      channels.delete(channel)
      broker.unfollow(channel)
    },
    readAlone(channel, reader) {
      const readers = channels.get(channel)
      if (!readers) return
      readers.alone ??= new Set()
      readers.alone.add(reader)
    },
    readTogether: (channel, reader) => void channels.get(channel)?.alone?.delete(reader),
    deliver(channel, text, position) {
      if (read.notifications++ === 0) {
        read.at = performance.now()
        queueMicrotask(record)
      }
      const readers = channels.get(channel)
      if (!readers) return
      for (const { form, topic, count } of readers.forms) {
        const rendered = form.render(channel, text, position)
        form.publish(topic, rendered)
        const bytes = Buffer.byteLength(rendered)
        read.deliveries += count
        read.bytes += count * bytes
        handedOn(bytes, count)
      }
      if (readers.alone && position === undefined)
        for (const reader of readers.alone) reader.write(reader.form.render(channel, text, undefined))
    },
  }
}

const firstReader = (form: Form, channel: string): FormReaders => ({ form, topic: form.topic(channel), count: 1 })

/** Whether a name matches one of the patterns, in which `*` stands for any text. */
export function createMatcher(patterns: readonly string[]): (name: string) => boolean {
  const expressions = patterns.map((pattern) => new RegExp(`^${pattern.split('*').map(RegExp.escape).join('[\\s\\S]*')}$`, 'u'))
  return (name) => expressions.some((expression) => expression.test(name))
}
