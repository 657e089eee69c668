/** What `postgres-websockets.js` offers. docs/client.md says how to use it. */

export interface Options {
  /** Asked at every connection, and whenever a token is about to end. What it throws is told as an error, and it is asked again later. */
  readonly getToken: () => string | Promise<string>
}

/** `waiting` is the time between two tries; `closed` is the end. */
export type State = 'connecting' | 'open' | 'waiting' | 'closed'

export interface Message {
  readonly channel: string
  readonly text: string
  /** The text as JSON, parsed when it is read; undefined where it is none. */
  // biome-ignore lint/suspicious/noExplicitAny: whoever publishes decides what it is, as with JSON.parse().
  readonly json: any
  /** Where the message stands in the journal; undefined for one that is not in it. */
  readonly position: string | undefined
}

/** Messages of that time, in seconds of UNIX time, may have been missed. `from` is null where it is not known. */
export interface Missed {
  readonly channel: string
  readonly from: number | null
  readonly to: number
}

/** What went wrong. Codes are those of the server, and NOT_CONNECTED, NO_TOKEN, OUTCOME_UNKNOWN and CLOSED. */
export interface ClientError extends Error {
  readonly code: string
  readonly channel: string | undefined
}

export interface Beginning {
  /** Begins behind this position. */
  readonly since?: string | null | undefined
  /** Without a position, begins with so many of the last messages, at most 1,000. */
  readonly last?: number | undefined
}

export interface Subscription {
  /** Settles when the subscription stands, or is refused for good with a `ClientError`. Who does not wait for it hears of that as an error. */
  readonly ready: Promise<void>
  unsubscribe(): void
}

export interface Client {
  readonly state: State
  /** One a channel. @throws where there is one already. */
  subscribe(channel: string, beginning: Beginning, listener: (message: Message) => void): Subscription
  /** Settles when the database has committed the message, or rejects with a `ClientError`. */
  publish(channel: string, text: string): Promise<void>
  /** @returns takes the listener away again. */
  on(type: 'state', listener: (state: State) => void): () => void
  on(type: 'missed', listener: (missed: Missed) => void): () => void
  on(type: 'error', listener: (error: ClientError) => void): () => void
  /** Ends everything. What was not answered yet rejects with `CLOSED`. */
  close(): void
}

/** Connects, and connects again until it is closed. @param url `wss://…` or `https://…`, in a browser also relative. */
export function connect(url: string | URL, options: Options): Client
