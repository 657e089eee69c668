/** The client module on each runtime, behind a network that cuts, swallows and delays. */
import { expect, test } from 'bun:test'
import { spawn } from 'node:child_process'
import { resolve } from 'node:path'
import { connect } from '../../client-example/postgres-websockets.js'
import { startBrowser } from '../support/browser.ts'
import type { Given, Result } from '../support/client-scenario.mjs'
import { withJournalServer } from '../support/journal-server.ts'
import { startProxy, type Proxy as TcpProxy } from '../support/proxy.ts'
import { createRandom } from '../support/random.ts'
import { unique } from '../support/setup.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

const root = resolve(import.meta.dir, '../..')
const seed = Number(process.env.CLIENT_SEED ?? Date.now() % 1_000_000)

const server = withJournalServer({ PGWS_ROOT_PATH: root })

/** Runs the scenario in another process, which prints what came of it. */
async function playIn(command: readonly string[], given: Given): Promise<Result> {
  const script = `
    const [{ connect }, { play }] = await Promise.all(
      ['client-example/postgres-websockets.js', 'test/support/client-scenario.mjs'].map((path) => import('file://${root}/' + path)))
    console.log(JSON.stringify(await play(connect, ${JSON.stringify(given)})))`
  const [program = '', ...flags] = command
  const child = spawn(program, [...flags, script], { stdio: ['ignore', 'pipe', 'pipe'] })
  let [output, errors] = ['', '']
  child.stdout.on('data', (chunk) => (output += chunk))
  child.stderr.on('data', (chunk) => (errors += chunk))
  const code = await new Promise((done) => child.once('close', done))
  if (code !== 0) throw new Error(`${program} ended with ${code}: ${errors}`)
  return JSON.parse(output)
}

async function playInChromium(given: Given): Promise<Result> {
  const browser = await startBrowser()
  try {
    const page = await browser.newPage()
    await page.goto(`http://127.0.0.1:${server.program.port}/client-example/style.css`)
    return await page.evaluate(async (values) => {
      const [{ connect }, { play }] = await Promise.all(
        ['/client-example/postgres-websockets.js', '/test/support/client-scenario.mjs'].map((path) => import(path)),
      )
      return play(connect, values)
    }, given)
  } finally {
    await browser.close()
  }
}

/** Does to connections what networks do, until told to stop. */
async function disturb(proxy: TcpProxy, isOver: { value: boolean }): Promise<void> {
  const random = createRandom(seed)
  const isLate = new Set<unknown>()
  while (!isOver.value) {
    await Bun.sleep(20 + random.below(100))
    const links = proxy.links()
    if (links.length === 0) continue
    const link = random.pick(links)
    const act = random.pick(['reset', 'swallow', 'swallow', 'delay', 'delay', 'away'])
    if (act === 'reset') link.reset()
    if (act === 'swallow') link.swallow(random.pick(['up', 'down', undefined]))
    if (act === 'delay' && !isLate.has(link)) link.delay(1 + random.below(30), random.pick(['up', 'down', undefined]))
    isLate.add(link)
    if (act !== 'away') continue
    proxy.swallow()
    await Bun.sleep(random.below(60))
    proxy.pass()
  }
}

const runtimes: Readonly<Record<string, (given: Given) => Promise<Result>>> = {
  'in Bun': (given) => playIn([process.execPath, '--eval'], given),
  // Node 22 knows WebSocket without being told.
  'in Node': (given) => playIn(['node', '--experimental-websocket', '--input-type=module', '--eval'], given),
  'in Deno': (given) => playIn([resolve(root, 'node_modules/deno/deno'), 'eval'], given),
  'in Chromium': playInChromium,
}

test.concurrent.each(Object.keys(runtimes))(
  '%s each journaled message is seen once and in order, and each publish that is acknowledged is there once, whatever is cut',
  async (runtime) => {
    const [kept, plain] = [`kept-${unique('cut')}`, unique('notified')]
    using proxy = await startProxy(server.program.port)
    const isOver = { value: false }
    const given = { url: `ws://127.0.0.1:${proxy.port}/`, token: await token({ mode: 'rw' }), kept, plain }
    const playing = runtimes[runtime]?.(given)
    await until(async () => (await stored(kept)).length > 5, 50)
    const disturbing = disturb(proxy, isOver)
    const notified: number[] = []
    const notify = async (number: number | 'end'): Promise<void> => {
      const text = JSON.stringify({ channel: plain, number })
      await server.journal.sql`select pg_notify('postgres-websockets-listener', ${text})`
    }
    const notifying = (async () => {
      for (; !isOver.value; await Bun.sleep(10)) {
        await notify(notified.length)
        notified.push(Date.now() / 1000)
      }
    })()
    await until(async () => (await stored(kept)).length > 250, 50)
    isOver.value = true
    await Promise.all([disturbing, notifying])
    // The last connections are cut too: what is whole then can only come from what the client does about it.
    for (const link of proxy.links()) link.reset()
    const ending = setInterval(() => void notify('end'), 50)
    const result = await playing
    clearInterval(ending)
    if (!result) throw new Error('no such runtime')

    const all = [...Array.from({ length: 300 }, (_, index) => String(index + 1)), 'end']
    const rows = await stored(kept)
    expect({ seed, lost: result.lost >= 2, refused: result.refused }).toEqual({ seed, lost: true, refused: [] })
    expect({ seed, rows: rows.toSorted() }).toEqual({ seed, rows: all.toSorted() })
    expect({ seed, seen: result.seen }).toEqual({ seed, seen: rows })
    expect(result.acknowledged.toSorted()).toEqual(all.toSorted())

    // What is not in the journal was seen, or may have been missed by what was told; of what is in it nothing is told.
    const seen = new Set(result.plain)
    const [first] = seen
    const isTold = (at: number): boolean => result.missed.some(({ from, to }) => Number(from) <= at && at <= to + 0.1)
    const silent = notified.map((at, number) => ({ at, number })).filter(({ at, number }) => !seen.has(number) && !isTold(at))
    expect({ seed, silent: silent.filter(({ number }) => number > Number(first)), missed: result.missed }).toMatchObject({
      seed,
      silent: [],
    })
    expect({ seed, channels: [...new Set(result.missed.map(({ channel }) => channel))] }).toEqual({ seed, channels: [plain] })
  },
)

test('a publish whose answer was lost is sent again, and is there once', async () => {
  const kept = `kept-${unique('lost')}`
  using proxy = await startProxy(server.program.port)
  const rw = await token({ mode: 'rw' })
  const client = connect(`ws://127.0.0.1:${proxy.port}/`, { getToken: () => rw })
  await client.publish(kept, 'answered')
  const [link] = proxy.links()
  link?.swallow('down')
  const published = client.publish(kept, 'not answered')
  await until(async () => (await stored(kept)).length === 2)
  link?.reset()
  await published
  await client.publish(kept, 'last')
  await until(async () => (await stored(kept)).includes('last'))
  expect(await stored(kept)).toEqual(['answered', 'not answered', 'last'])
  client.close()
})

/** The texts of the channel, in the journal's order. */
async function stored(channel: string): Promise<string[]> {
  const all = await server.journal.all()
  return all
    .filter((entry) => entry.startsWith(`${channel}:`))
    .map((entry) => JSON.parse(entry.slice(channel.length + 1)).payload)
}
