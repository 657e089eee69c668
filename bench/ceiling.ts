/** The ceiling: the shortest Bun program that bridges at all. No tokens, no checks, no healing, nothing bounded. */
import postgres from 'postgres'

const CHANNEL = 'postgres-websockets-listener'
const sql = postgres(process.env.PGWS_DB_URI ?? '', { max: 1, fetch_types: false, onnotice: () => undefined })

let queue: string[] = []
let isSending = false
async function send(): Promise<void> {
  isSending = true
  while (queue.length > 0) {
    const batch = queue.splice(0, 1000).join('\u0001')
    await sql`select count(pg_notify(${CHANNEL}, n)) from unnest(string_to_array(${batch}, ${'\u0001'})) as n`
  }
  isSending = false
}

let stamp = Date.now() * 1000
const server = Bun.serve<{ channel: string }>({
  hostname: '127.0.0.1',
  port: Number(process.env.PGWS_PORT),
  fetch(request, server) {
    // No more than an answer: what HTTP itself costs.
    if (request.method === 'POST') return request.arrayBuffer().then(() => new Response(null, { status: 204 }))
    const [, channel = ''] = new URL(request.url).pathname.split('/')
    return server.upgrade(request, { data: { channel } }) ? undefined : new Response('no', { status: 400 })
  },
  websocket: {
    idleTimeout: 0,
    sendPings: false,
    open(socket) {
      socket.subscribe(socket.data.channel)
    },
    message(socket, payload) {
      queue.push(
        JSON.stringify({
          claims: { mode: 'rw', message_delivered_at: ++stamp },
          event: 'WebsocketMessage',
          payload,
          channel: socket.data.channel,
        }),
      )
      if (!isSending) void send()
    },
  },
})
await sql.listen(CHANNEL, (text) => {
  server.publish(JSON.parse(text).channel, text)
})
queue = []
console.log(`Listening on port ${server.port}`)
