/** Owns the tests' clients of `pgws.json`: commands go out, and events come back as objects. */
import { type Client, connect } from './client.ts'
import type { Program } from './program.ts'
import { token } from './token.ts'

export type Event = Readonly<Record<string, unknown>>

export interface Commanding extends AsyncDisposable {
  readonly client: Client
  /** Sends a command, or a text as it is. */
  say(command: Event | string): void
  /** Sends commands and returns as many events. */
  ask(...commands: (Event | string)[]): Promise<Event[]>
  next(): Promise<Event>
  take(count: number): Promise<Event[]>
}

export interface Opening {
  /** Claims of the token. Default `{ mode: 'rw' }`. */
  readonly claims?: Readonly<Record<string, unknown>>
  /** Path and query; default the root, with `subscribe=none`. */
  readonly path?: string
}

/** Opens a connection, and returns it with its first event. */
export async function converse(
  program: Pick<Program, 'origin'>,
  { claims = { mode: 'rw' }, path = '/?subscribe=none' }: Opening = {},
) {
  const protocols = ['pgws.json', `pgws.token.${await token(claims)}`]
  const client = await connect(program.origin + path, { protocols })
  const parse = (text: string): Event => JSON.parse(text)
  const commanding: Commanding = {
    client,
    say: (command) => client.send(typeof command === 'string' ? command : JSON.stringify(command)),
    async ask(...commands) {
      for (const command of commands) commanding.say(command)
      return commanding.take(commands.length)
    },
    next: async () => parse(await client.next()),
    take: async (count) => (await client.take(count)).map(parse),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
  return Object.assign(commanding, { connected: await commanding.next() })
}
