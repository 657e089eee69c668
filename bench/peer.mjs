// The hand-written peer: what a Node developer writes in an afternoon.
import pg from 'pg'
import { WebSocketServer } from 'ws'

const CHANNEL = 'postgres-websockets-listener'
const pool = new pg.Pool({ connectionString: process.env.PGWS_DB_URI })
const listener = new pg.Client({ connectionString: process.env.PGWS_DB_URI })
const channels = new Map()
let stamp = 0

const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.env.PGWS_PORT) }, async () => {
  await listener.connect()
  listener.on('notification', ({ payload }) => {
    for (const socket of channels.get(JSON.parse(payload).channel) ?? []) socket.send(payload)
  })
  await listener.query(`listen "${CHANNEL}"`)
  console.log(`Listening on port ${server.address().port}`)
})
server.on('connection', (socket, request) => {
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
