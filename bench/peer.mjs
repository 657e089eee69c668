// The hand-written peer: what a Node developer writes in an afternoon.
import { createServer } from 'node:http'
import pg from 'pg'
import { WebSocketServer } from 'ws'

const CHANNEL = 'postgres-websockets-listener'
const pool = new pg.Pool({ connectionString: process.env.PGWS_DB_URI })
const listener = new pg.Client({ connectionString: process.env.PGWS_DB_URI })
const channels = new Map()
let stamp = 0

const streams = new Map()
const server = createServer((request, response) => {
  const [, channel] = request.url.split('/')
  if (!streams.has(channel)) streams.set(channel, new Set())
  streams.get(channel).add(response)
  response.on('close', () => streams.get(channel).delete(response))
  response.writeHead(200, { 'Content-Type': 'text/event-stream' }).flushHeaders()
})
server.listen(Number(process.env.PGWS_PORT), '127.0.0.1', async () => {
  await listener.connect()
  listener.on('notification', ({ payload }) => {
    const { channel } = JSON.parse(payload)
    for (const socket of channels.get(channel) ?? []) socket.send(payload)
    for (const response of streams.get(channel) ?? []) response.write(`data: ${payload}\n\n`)
  })
  await listener.query(`listen "${CHANNEL}"`)
  console.log(`Listening on port ${server.address().port}`)
})
new WebSocketServer({ server }).on('connection', (socket, request) => {
  const [, channel] = request.url.split('/')
  if (!channels.has(channel)) channels.set(channel, new Set())
  channels.get(channel).add(socket)
  socket.on('close', () => channels.get(channel).delete(socket))
  socket.on('message', (data) => {
    const text = JSON.stringify({
      claims: { message_delivered_at: ++stamp },
      event: 'WebsocketMessage',
      payload: String(data),
      channel,
    })
    pool.query('select pg_notify($1, $2)', [CHANNEL, text]).catch(console.error)
  })
})
