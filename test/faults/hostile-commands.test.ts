import { expect, test } from 'bun:test'
import { connect, payloadOf } from '../support/client.ts'
import { type Commanding, converse, type Event } from '../support/commands.ts'
import { residentBytes } from '../support/memory.ts'
import { start } from '../support/program.ts'
import { createRandom } from '../support/random.ts'
import { database } from '../support/setup.ts'
import { now, token } from '../support/token.ts'

/** Milliseconds. `npm run fuzz` goes on for long; `FUZZ_SEED` repeats a run. */
const DURATION = Number(process.env.FUZZ_SECONDS ?? 3) * 1000

const seed = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31))
const { below: random, pick } = createRandom(seed)
const noise = (length: number): Uint8Array => Uint8Array.from({ length }, () => random(256))

/** Those that the tokens of this test allow; "direct" ones are the database's own. */
const allowed = ['a', 'b', 'direct-1', 'direct-2', '__proto__', 'json:a', 'text:a', '\u0000', 'x'.repeat(1024)]
const channels = [...allowed, 'private', 'json:private', 'text:private', '', 'ü'.repeat(600), 7, null, ['a'], { length: 1 }]
const ids = [undefined, null, 0, 1, -1.5, 1e300, '', 'id', 'x'.repeat(200), {}, [], true]
const texts = ['', 'text', '\0', 'x'.repeat(9000), '{"channel":"private"}', '\u2028 ü 🦄', 7, null, {}]
const positions = [undefined, null, '', '1f.1-7', '1f.1-99999999999999999999', 'x', 7, {}]
const lasts = [undefined, null, '', 0, 1, 1000, 1001, -1, 1.5, '5']
const keys = [undefined, null, 'k', 'k\0', 'x'.repeat(300), 7]

async function makeTokens(): Promise<string[]> {
  const claims = [
    { mode: 'rw', channels: allowed },
    { mode: 'r', channels: allowed.slice(0, 2) },
    { mode: 'w', channels: ['a'] },
    { mode: 'rw', channels: allowed, exp: now() + 3600 },
    { mode: 'rw', channels: [] },
    { mode: 'x' },
    { mode: 'rw', exp: now() - 1 },
  ]
  return Promise.all(claims.map((each) => token(each)))
}

const command = (tokens: readonly string[]): Event => ({
  id: pick(ids),
  command: pick(['subscribe', 'subscribe', 'unsubscribe', 'publish', 'publish', 'token', 'ping', 'constructor', '', 7]),
  channel: pick(channels),
  text: pick(texts),
  token: pick([...tokens, '', 'x.y.z', 7, 'x'.repeat(20_000)]),
  since: random(4) === 0 ? pick(positions) : undefined,
  last: random(4) === 0 ? pick(lasts) : undefined,
  key: random(4) === 0 ? pick(keys) : undefined,
})

/** A text with a piece of it taken out, put in or doubled. */
function bent(text: string): string {
  const at = random(text.length + 1)
  const to = Math.min(text.length, at + random(10))
  const piece = pick([
    () => '',
    () => text.slice(at, to).repeat(2),
    () => pick(['{', '}', '[', '"', '\\', '\\u0000', '\\ud800', ',', ':', 'null', '1e999', '\u0000', '['.repeat(5000)]),
  ])()
  return text.slice(0, at) + piece + text.slice(to)
}

const frame = (tokens: readonly string[]): string | Uint8Array =>
  pick<() => string | Uint8Array>([
    () => JSON.stringify(command(tokens)),
    () => JSON.stringify(command(tokens)),
    () => bent(JSON.stringify(command(tokens))),
    () => noise(random(100)),
    () => new TextEncoder().encode(JSON.stringify(command(tokens))),
  ])()

/** What the server says of its own accord, and not in answer to a command. */
const isUnasked = ({ event, code }: Event): boolean =>
  event === 'Message' || event === 'MessagesMissed' || (event === 'Unsubscribed' && code !== undefined)

const answered = ['Subscribed', 'Unsubscribed', 'Published', 'TokenAccepted', 'Pong', 'Refused']

test(
  `garbage for commands (FUZZ_SEED=${seed}) is answered each, closes nothing, reaches no channel that is not allowed, and leaks nothing`,
  async () => {
    await using program = await start({
      PGWS_DB_URI: database().uri,
      PGWS_DATABASE_CHANNELS: 'direct-*',
      PGWS_MAX_SUBSCRIPTIONS: '6',
    })
    const tokens = await makeTokens()
    const access = await token({ mode: 'rw' })
    await using reader = await connect(`${program.origin}/private/${access}`)
    const open = (): Promise<Commanding> => converse(program, { claims: { mode: 'rw', channels: allowed } })
    const end = Date.now() + DURATION
    let clients: Commanding[] = []
    let memory = 0
    let frames = 0
    while (Date.now() < end) {
      if (clients.length === 0) clients = await Promise.all(Array.from({ length: 8 }, open))
      await Promise.all(
        clients.map(async (client) => {
          const sent = Array.from({ length: 50 }, () => frame(tokens))
          for (const each of sent) client.client.send(each)
          for (let answers = 0; answers < sent.length; ) {
            const event = await client.next()
            if (isUnasked(event)) continue
            expect(answered).toContain(String(event.event))
            if (event.event === 'Refused') expect(event).toMatchObject({ code: expect.any(String), reason: expect.any(String) })
            answers++
          }
          frames += sent.length
        }),
      )
      // Some hang up with subscriptions that do not stand yet.
      if (random(5) === 0) {
        for (const client of clients) client.say({ command: 'subscribe', channel: pick(['direct-1', 'direct-2']) })
        await Promise.all(clients.splice(0).map(({ client }) => client.close()))
      }
      if (memory === 0 && Date.now() > end - DURATION / 2) memory = residentBytes(program.pid)
    }
    expect(frames).toBeGreaterThan(1000)
    expect(residentBytes(program.pid) - memory).toBeLessThan(64 * 1024 * 1024)
    reader.send('mine')
    expect(payloadOf(await reader.next())).toBe('mine')
    await Promise.all(clients.map(({ client }) => client.close()))
    expect(await program.stop()).toBe(0)
    expect(program.stderr()).not.toMatch(/request failed|error:|panic/)
  },
  DURATION + 30_000,
)
