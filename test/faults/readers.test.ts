import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { connect as connectSocket, type Socket } from 'node:net'
import { adminOf } from '../support/admin.ts'
import { rawConnection, readTexts } from '../support/client.ts'
import { openCrowd } from '../support/crowd.ts'
import { residentBytes } from '../support/memory.ts'
import { type Program, start } from '../support/program.ts'
import { database, sql, unique } from '../support/setup.ts'
import { token } from '../support/token.ts'
import { until } from '../support/until.ts'

const BUFFER = 262_144

let program: Program
let channel: string
let path: string
beforeAll(async () => {
  program = await start({ PGWS_DB_URI: database().uri, PGWS_SEND_BUFFER_BYTES: String(BUFFER), PGWS_ADMIN_PORT: '0' })
})
beforeEach(async () => {
  channel = unique('readers')
  path = `/${channel}/${await token({ mode: 'r' })}`
})
afterAll(() => program.stop())

interface Reader {
  readonly numbers: readonly number[]
  readonly socket: Socket
  readonly opened: Promise<unknown>
  readonly closed: Promise<unknown>
  isClosed: boolean
}

/** How clients come in, and how each text reaches them. */
const doors = {
  WebSocket(received: (text: string) => void) {
    const socket = rawConnection(program.port, path)
    readTexts(socket, received)
    return socket
  },
  'event stream'(received: (text: string) => void) {
    const socket = connectSocket(program.port, '127.0.0.1')
    socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n`)
    // One that is cut off may be reset.
    socket.on('error', () => undefined)
    let rest = ''
    socket.on('data', (data) => {
      rest += data
      const events = rest.split('\n\n')
      rest = events.pop() ?? ''
      for (const event of events) {
        // Ahead of a piece stands its length.
        const text = /(?:^|\n)data: (.*)$/.exec(event)?.[1]
        if (text !== undefined) received(text)
      }
    })
    return socket
  },
}

type Door = keyof typeof doors

/** A client that can stop reading, and keeps the numbers of the messages that it read. */
function openBy(door: Door): Reader {
  const numbers: number[] = []
  const socket = doors[door]((text) => numbers.push(JSON.parse(text).n))
  const closed = new Promise<void>((gone) => socket.once('close', () => gone()))
  const reader: Reader = {
    numbers,
    socket,
    opened: new Promise((opened) => socket.once('data', opened)),
    closed,
    isClosed: false,
  }
  void closed.then(() => {
    reader.isClosed = true
  })
  return reader
}

let sent = 0

/** Notifies some more messages of 1,000 bytes, numbered on. */
async function notify(count: number): Promise<void> {
  await sql()`select count(pg_notify('postgres-websockets-listener', json_build_object('channel', ${channel}::text, 'n', n, 'text', repeat('x', 1000))::text))
    from generate_series(${sent}::int, ${sent + count - 1}::int) as n`
  sent += count
}

const contiguous = (numbers: readonly number[]): readonly number[] => Array.from({ length: numbers.length }, (_, index) => index)

async function all(reader: Reader): Promise<void> {
  while (reader.numbers.length < sent) await new Promise((read) => reader.socket.once('data', () => setImmediate(read)))
}

/** A reader who comes now gets what is sent. */
async function serveAnother(door: Door): Promise<void> {
  sent = 0
  const another = openBy(door)
  await another.opened
  await notify(10)
  await all(another)
  another.socket.destroy()
}

describe.each(['WebSocket', 'event stream'] as const)('by %s,', (door) => {
  const open = (): Reader => openBy(door)

  test('one of 100 readers stalls: it is dropped after what it could take, without a gap, and 99 get everything', async () => {
    sent = 0
    const readers = Array.from({ length: 100 }, open)
    await Promise.all(readers.map(({ opened }) => opened))
    const [stalled, ...others] = readers
    stalled?.socket.pause()
    const before = program.stderr().length
    while (!program.stderr().slice(before).includes('reads too slowly')) {
      await notify(100)
      await Promise.all(others.map(all))
    }
    stalled?.socket.resume()
    await stalled?.closed
    expect(stalled?.numbers).toEqual(contiguous(stalled?.numbers ?? []))
    expect(stalled?.numbers.length).toBeLessThan(sent)
    await notify(100)
    await Promise.all(others.map(all))
    for (const { numbers, isClosed } of others)
      expect({ numbers, isClosed }).toEqual({ numbers: contiguous(numbers), isClosed: false })
    for (const { socket } of others) socket.destroy()
  }, 30_000)

  test('all of 100 readers stall: each is dropped without a gap, memory is bounded, and the next reader is served', async () => {
    sent = 0
    const readers = Array.from({ length: 100 }, open)
    await Promise.all(readers.map(({ opened }) => opened))
    for (const { socket } of readers) socket.pause()
    const before = residentBytes(program.pid)
    const logged = program.stderr().length
    const dropped = (): number => program.stderr().slice(logged).split('reads too slowly').length - 1
    let most = 0
    while (dropped() < readers.length) {
      await notify(100)
      most = Math.max(most, residentBytes(program.pid))
    }
    // What may wait for each, twice for what the runtime keeps beside it, and the program's own room.
    expect(most - before).toBeLessThan(2 * 100 * BUFFER + 64 * 1024 * 1024)
    for (const { socket } of readers) socket.resume()
    await Promise.all(readers.map(({ closed }) => closed))
    for (const { numbers } of readers) expect(numbers).toEqual(contiguous(numbers))
    await serveAnother(door)
  }, 60_000)

  test('a reader that stops and goes on, within what may wait for it, gets everything in order', async () => {
    sent = 0
    const reader = open()
    await reader.opened
    for (let round = 0; round < 5; round++) {
      reader.socket.pause()
      await notify(150)
      reader.socket.resume()
      await all(reader)
    }
    expect(reader.numbers).toEqual(contiguous(reader.numbers))
    expect(reader.numbers).toHaveLength(750)
    reader.socket.destroy()
  })

  test('a slow reader, which reads once every 200 ms, gets messages in order until it is dropped, while another gets everything', async () => {
    sent = 0
    const [slow, quick] = [open(), open()]
    await Promise.all([slow.opened, quick.opened])
    slow.socket.pause()
    const trickle = setInterval(() => {
      slow.socket.once('data', () => slow.socket.pause())
      slow.socket.resume()
    }, 200)
    const before = program.stderr().length
    while (!program.stderr().slice(before).includes('reads too slowly')) {
      await notify(500)
      await all(quick)
      await Bun.sleep(50)
    }
    clearInterval(trickle)
    expect(slow.numbers.length).toBeGreaterThan(0)
    slow.socket.resume()
    await slow.closed
    expect(slow.numbers).toEqual(contiguous(slow.numbers))
    expect(slow.numbers.length).toBeLessThan(sent)
    expect(quick.numbers).toEqual(contiguous(quick.numbers))
    quick.socket.destroy()
  }, 30_000)

  test('readers that stop and go on at random see no gap before they are dropped', async () => {
    sent = 0
    const readers = Array.from({ length: 60 }, open)
    await Promise.all(readers.map(({ opened }) => opened))
    for (const { socket } of readers) socket.pause()
    // Whoever goes on for a moment makes room just when the limit is near.
    const jolt = setInterval(() => {
      const some = readers.filter(() => Math.random() < 0.2)
      for (const { socket } of some) socket.resume()
      setTimeout(() => {
        for (const { socket } of some) socket.pause()
      }, Math.random() * 3)
    }, 4)
    const before = program.stderr().length
    const dropped = (): number => program.stderr().slice(before).split('reads too slowly').length - 1
    for (let round = 0; round < 100 && dropped() < readers.length; round++) await notify(200)
    clearInterval(jolt)
    // Behind the last of the timers.
    await Bun.sleep(10)
    for (const { socket } of readers) socket.pause()
    while (dropped() < readers.length) await notify(200)
    for (const { socket } of readers) socket.resume()
    await Promise.all(readers.map(({ closed }) => closed))
    for (const { numbers } of readers) expect(numbers).toEqual(contiguous(numbers))
  }, 60_000)
})

test('connections by the thousand arrive at once, are served, leave at once, and leave nothing behind', async () => {
  // Two descriptors short of what the system lets one process have.
  const limit = Number(/Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
  const count = Math.min(10_000, limit - 200)
  let memory = 0
  for (let round = 0; round < 3; round++) {
    const crowd = await openCrowd(program.port, Array<string>(count).fill(path), count)
    const served = crowd.expect(count)
    sent = 0
    await notify(1)
    await served
    await crowd.close()
    if (round === 0) memory = residentBytes(program.pid)
  }
  expect(residentBytes(program.pid) - memory).toBeLessThan(32 * 1024 * 1024)
  const admin = await adminOf(program)
  const held = async () => {
    const text = await (await fetch(`${admin}/metrics`)).text()
    return text.split('\n').filter((line) => line.startsWith('pgws_connections{'))
  }
  const none = ['r', 'w', 'rw'].map((mode) => `pgws_connections{mode="${mode}"} 0`)
  const end = Date.now() + 5000
  await until(async () => String(await held()) === String(none) || Date.now() > end)
  expect(await held()).toEqual(none)
  await serveAnother('WebSocket')
}, 60_000)
