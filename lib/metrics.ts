/**
 * Owns what the program counts, and how it is written (Prometheus text format 0.0.4). It is less code than a library would need, and
 * counting a message takes no look-up by name.
 */

export interface Counter {
  add(amount?: number): void
}

export interface LabelledCounter {
  /** @param value of the label. */
  add(value: string | number): void
}

export interface Histogram {
  /** @param times how often the value was seen. */
  observe(value: number, times?: number): void
}

/** What a gauge reads: a number, or one for each value of its label. */
export type Reading = number | Readonly<Record<string, number>>

export type Metrics = ReturnType<typeof createMetrics>

/** Seconds. */
const DURATIONS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

const SIZES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]

export function createMetrics() {
  const parts: (() => string)[] = []
  const gauges = new Map<string, (() => Reading)[]>()
  const describe = (name: string, type: string, help: string): string => `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`

  function counter(name: string, help: string): Counter {
    let count = 0
    parts.push(() => describe(name, 'counter', help) + sample(name, undefined, '', count))
    return {
      add(amount = 1) {
        count += amount
      },
    }
  }

  function labelled(name: string, help: string, label: string): LabelledCounter {
    const values = new Map<string, number>()
    parts.push(
      () => describe(name, 'counter', help) + [...values].map(([value, count]) => sample(name, label, value, count)).join(''),
    )
    return {
      add(value) {
        const key = String(value)
        values.set(key, (values.get(key) ?? 0) + 1)
      },
    }
  }

  /** A gauge of plain numbers that is there already shows the sum. */
  function gauge(name: string, help: string, read: () => Reading, label?: string, type: 'gauge' | 'counter' = 'gauge'): void {
    const known = gauges.get(name)
    if (known) return void known.push(read)
    const reads = [read]
    gauges.set(name, reads)
    parts.push(() => {
      const reading = reads.length === 1 ? read() : reads.reduce((sum, one) => sum + Number(one()), 0)
      const values = typeof reading === 'number' ? [['', reading] as const] : Object.entries(reading)
      return describe(name, type, help) + values.map(([value, number]) => sample(name, label, value, number)).join('')
    })
  }

  function histogram(name: string, help: string, bounds: readonly number[]): Histogram {
    const counts = new Array<number>(bounds.length + 1).fill(0)
    let sum = 0
    parts.push(() => {
      let below = 0
      const buckets = [...bounds, Number.POSITIVE_INFINITY].map((bound, index) => {
        below += counts[index] ?? 0
        return sample(`${name}_bucket`, 'le', bound === Number.POSITIVE_INFINITY ? '+Inf' : String(bound), below)
      })
      return (
        describe(name, 'histogram', help) +
        buckets.join('') +
        sample(`${name}_sum`, undefined, '', sum) +
        sample(`${name}_count`, undefined, '', below)
      )
    })
    return {
      observe(value, times = 1) {
        let index = 0
        while (index < bounds.length && value > (bounds[index] ?? 0)) index++
        counts[index] = (counts[index] ?? 0) + times
        sum += value * times
      },
    }
  }

  return {
    gauge,
    opened: labelled('pgws_connections_opened_total', 'Connections opened, by mode.', 'mode'),
    refused: labelled('pgws_upgrades_refused_total', 'Upgrades refused, by reason.', 'reason'),
    closed: labelled(
      'pgws_connections_closed_total',
      'Connections closed, by close code; "own" for codes of the clients.',
      'code',
    ),
    pauses: counter('pgws_accept_pauses_total', 'Times that no connections were accepted for want of file descriptors.'),
    slowReaders: counter('pgws_slow_readers_disconnected_total', 'Connections dropped because too much waited for them.'),
    received: counter('pgws_messages_received_total', 'Messages received from clients.'),
    receivedBytes: counter('pgws_message_bytes_received_total', 'Bytes of messages received from clients.'),
    ignored: counter('pgws_messages_ignored_total', 'Messages of clients whose token does not let them write.'),
    rejected: labelled('pgws_messages_refused_total', 'Messages of clients refused by the database or by its function.', 'by'),
    notifications: counter('pgws_notifications_received_total', 'Notifications received from the database.'),
    delivered: counter('pgws_messages_delivered_total', 'Messages handed to the sockets of readers.'),
    deliveredBytes: counter('pgws_message_bytes_delivered_total', 'Bytes of messages handed to the sockets of readers.'),
    toSocket: histogram(
      'pgws_notification_to_socket_seconds',
      'Time from a notification to the sockets of its readers.',
      DURATIONS,
    ),
    toCommit: histogram(
      'pgws_message_to_commit_seconds',
      "Time from a client's message to its commit in the database.",
      DURATIONS,
    ),
    batches: histogram('pgws_batch_messages', 'Messages in a batch that the database took.', SIZES),
    reconnections: counter('pgws_listener_reconnections_total', 'Times that LISTEN stood again after it was lost.'),
    outage: counter('pgws_listener_outage_seconds_total', 'Seconds in which notifications may have been missed.'),
    authorizeQuestions: counter(
      'pgws_authorize_questions_total',
      'Questions that the database was asked: what a client may on a channel.',
    ),
    authorizeQueries: counter('pgws_authorize_queries_total', 'Queries in which it was asked them.'),
    decisions: labelled('pgws_authorize_decisions_total', 'Decisions of the database, by answer.', 'answer'),
    withdrawn: counter(
      'pgws_access_withdrawn_total',
      'Times that a connected client lost a channel, or some of its rights there.',
    ),
    /** All metrics, as Prometheus reads them. */
    render: (): string => parts.map((part) => part()).join(''),
  }
}

function sample(name: string, label: string | undefined, value: string, number: number): string {
  const labels = label === undefined ? '' : `{${label}="${value.replaceAll(/[\\"]/g, '\\$&').replaceAll('\n', '\\n')}"}`
  return `${name}${labels} ${number}\n`
}
