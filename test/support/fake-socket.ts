/** Owns a server that is none: the client module finds a WebSocket here whose other end is the test. */
import { jest } from 'bun:test'

/** One connection that the client tried to open. */
export interface Wire {
  readonly url: string
  readonly protocols: readonly string[]
  /** Commands that came, and were not taken yet. */
  readonly commands: Record<string, unknown>[]
  bufferedAmount: number
  isClosed: boolean
  /** Hands the client an event. */
  say(event: Readonly<Record<string, unknown>>): void
  /** Says what the server says first. */
  connect(): void
  /** Answers the oldest command. */
  answer(event: Readonly<Record<string, unknown>>): void
  /** Ends the connection from the other side. */
  end(code: number, reason?: string): void
}

export interface FakeNetwork extends Disposable {
  readonly wires: Wire[]
  /** The latest connection. */
  wire(): Wire
  /** Lets time pass, and what waits for promises happen. */
  pass(milliseconds: number): Promise<void>
}

export function fakeNetwork(): FakeNetwork {
  const wires: Wire[] = []
  const RealSocket = globalThis.WebSocket
  jest.useFakeTimers()

  class FakeSocket {
    bufferedAmount = 0
    isClosed = false
    onmessage: ((event: { data: string }) => void) | undefined
    onclose: ((event: { code: number; reason: string }) => void) | undefined
    readonly commands: Record<string, unknown>[] = []
    constructor(
      readonly url: string,
      readonly protocols: readonly string[],
    ) {
      wires.push(this)
    }
    send(text: string): void {
      this.commands.push(JSON.parse(text))
    }
    close(): void {
      this.isClosed = true
    }
    say(event: Readonly<Record<string, unknown>>): void {
      this.onmessage?.({ data: JSON.stringify(event) })
    }
    connect(): void {
      this.say({ event: 'Connected', mode: 'rw', channels: [], expires: null, position: null })
    }
    answer(event: Readonly<Record<string, unknown>>): void {
      const { id, channel } = this.commands.shift() ?? {}
      this.say({ id, channel, ...event })
    }
    end(code: number, reason = ''): void {
      this.onclose?.({ code, reason })
    }
  }
  // The module uses no more of a socket than this one has.
  globalThis.WebSocket = FakeSocket as unknown as typeof WebSocket

  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve()
  }
  return {
    wires,
    wire: () => {
      const wire = wires.at(-1)
      if (!wire) throw new Error('nobody connected')
      return wire
    },
    async pass(milliseconds) {
      await settle()
      jest.advanceTimersByTime(milliseconds)
      await settle()
    },
    [Symbol.dispose]: () => {
      jest.useRealTimers()
      globalThis.WebSocket = RealSocket
    },
  }
}
