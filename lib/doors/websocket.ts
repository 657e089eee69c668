/** Owns clients that are WebSockets: their subprotocols, and how they are written to, closed and dropped. */

import type { Client, Form, Protocol } from '../channels/client.ts'
import type { End } from '../channels/client-log.ts'
import type { Session, Sessions } from '../channels/session.ts'
import type { ClosureCode } from '../refusal.ts'
import type { Handlers, RunningServer, Socket } from '../runtime/contract.ts'
import { jsonCommands, jsonMessage } from './command.ts'

/** What is spoken, by the name of the subprotocol; `plain` to who offers none that is known. */
export interface Protocols {
  readonly plain: Protocol
  readonly pgws: Protocol
  readonly 'pgws.json': Protocol
}

/**
 * No channel's name makes a topic that of another form.
 *
 * @param publish as the running server's, which comes to be only after what is spoken over it.
 */
export function createProtocols(publish: RunningServer['publish']): Protocols {
  const text: Form = { render: (_, text) => text, topic: (channel) => `text:${channel}`, publish }
  const json: Form = { render: jsonMessage, topic: (channel) => `json:${channel}`, publish }
  return {
    plain: { name: 'plain', form: text, tell: undefined, commands: undefined },
    pgws: { name: 'pgws', form: text, tell: JSON.stringify, commands: undefined },
    'pgws.json': { name: 'pgws.json', form: json, tell: JSON.stringify, commands: jsonCommands },
  }
}

/** What the runtime is to do with sockets. */
export function createSocketHandlers(sessions: Sessions): Omit<Handlers<Session>, 'request' | 'paused' | 'resumed'> {
  return {
    open: (socket) => sessions.open(socket.data, new WebSocketClient(socket)),
    message: ({ data }, message) => sessions.message(data, message),
    ping: ({ data }) => sessions.ping(data),
    pong: ({ data }) => sessions.pong(data),
    close: ({ data }, code, reason) => sessions.closed(data, code, reason),
  }
}

/** A class, so that ten thousand clients share its functions. */
class WebSocketClient implements Client {
  constructor(private readonly socket: Socket<Session>) {}

  waiting(): number {
    return this.socket.getBufferedAmount()
  }

  write(text: string): void {
    this.socket.send(text)
  }

  writeAll(texts: readonly string[]): void {
    this.socket.cork(() => {
      for (const text of texts) this.socket.send(text)
    })
  }

  join(channel: string): void {
    this.socket.subscribe(this.topic(channel))
  }

  leave(channel: string): void {
    this.socket.unsubscribe(this.topic(channel))
  }

  private topic(channel: string): string {
    return this.socket.data.protocol.form.topic(channel)
  }

  ping(): boolean {
    this.socket.ping()
    return true
  }

  end(_: ClosureCode, { code, reason }: End): void {
    this.socket.close(code, reason)
  }

  drop(): void {
    this.socket.terminate()
  }
}
