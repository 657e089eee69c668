/**
 * Owns clients that write all the time, in a Node.js process of their own: there a write that fails takes with it what is unread. They
 * read once in 100 ms.
 *
 *     node writers.mjs URL COUNT
 *
 * Prints `writing` once all are open, and the codes that they were closed with when all are closed.
 */
import { argv } from 'node:process'
import WebSocket from 'ws'

const [url, count] = argv.slice(2)

const sockets = Array.from({ length: Number(count) }, () => new WebSocket(url))
const closed = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve)))
// The code says it.
for (const socket of sockets) socket.on('error', () => undefined)
await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('open', resolve))))
console.log('writing')

let sent = 0

function write() {
  const end = performance.now() + 100
  while (performance.now() < end) {
    for (const [writer, socket] of sockets.entries()) if (socket.readyState === WebSocket.OPEN) socket.send(`${writer}-${sent}`)
    sent++
    const pause = performance.now() + 1
    while (performance.now() < pause);
  }
  if (sockets.some(({ readyState }) => readyState === WebSocket.OPEN)) setImmediate(write)
}
write()
console.log(JSON.stringify(await Promise.all(closed)))
