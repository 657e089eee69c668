// A chat over postgres-websockets, to learn from: sign a token, open a socket, read envelopes, write text.

const $ = (selector, within = document) => within.querySelector(selector)

/** Opens a socket on the channels that the token names, with their last messages where they are kept. The token travels as a subprotocol, so that it is in no URL and no log. */
function openSocket(token) {
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:'
  return new WebSocket(`${scheme}//${location.host}/?last=50`, ['pgws', `pgws.token.${token}`])
}

/** What one message says. A notification can be any text; an envelope is an object with an event and a payload. */
function readMessage(text) {
  try {
    const message = JSON.parse(text)
    const { event, channel, payload, claims } = message
    if (event === 'MessagesMissed') return { who: 'server', what: `you may have missed messages on ${channel}` }
    if (event === 'WebsocketMessage') return { who: claims?.name ?? 'SQL', what: payload }
    if (event) return { who: 'server', what: `${event} ${payload}` }
  } catch {
    // Not JSON: shown as it is.
  }
  return { who: 'SQL', what: text }
}

const reasons = {
  1000: 'closed',
  1001: 'the server is shutting down',
  1006: 'no close frame: refused, or the connection broke',
}

/** Shows a message as a chat line, and below it as it came. */
function show(list, text) {
  const { who, what } = readMessage(text)
  const item = document.createElement('li')
  const line = document.createElement('p')
  const name = document.createElement('b')
  const raw = document.createElement('pre')
  name.textContent = `${who}: `
  line.append(name, typeof what === 'string' ? what : JSON.stringify(what))
  raw.textContent = text
  item.append(line, raw)
  list.append(item)
  item.scrollIntoView({ block: 'nearest' })
}

/** Keeps a line of text at the socket's state. */
function follow(socket, state, token) {
  const say = (text, kind = '') => {
    state.textContent = text
    state.className = `state ${kind}`
  }
  say('connecting …')
  socket.addEventListener('open', () => say('open', 'open'))
  socket.addEventListener('close', ({ code, reason }) => {
    const failed = code !== 1000
    say(`closed with ${code}: ${reason || reasons[code] || 'no reason given'}`, failed ? 'failed' : '')
    // A browser does not show why an upgrade was refused, but the token does.
    if (code === 1006 && token.exp * 1000 < Date.now()) say('refused: Token expired', 'failed')
  })
}

/** Makes the panel of one socket. */
function addSocket({ channels, mode, name, seconds, secret }) {
  const claims = claimsOf({ channels, mode, name, seconds })
  const socket = openSocket(sign(claims, secret))
  const panel = $('#socket').content.cloneNode(true).firstElementChild
  $('h2', panel).textContent = `${name || 'nobody'} on ${claims.channels.join(', ')} (${mode})`
  const answers = claims.channels.map((channel) => answer(channel))
  $('.sql', panel).textContent = answers.join('\n\n')
  $('#sockets').append(panel)

  const messages = $('.messages', panel)
  const write = $('.write', panel)
  const enable = (on) => {
    for (const element of write.elements) element.disabled = !on
  }
  write.hidden = mode === 'r'
  enable(false)
  follow(socket, $('.state', panel), claims)
  socket.addEventListener('open', () => enable(true))
  socket.addEventListener('message', ({ data }) => show(messages, data))
  socket.addEventListener('close', () => {
    enable(false)
    $('.end', panel).textContent = 'Remove'
  })
  write.addEventListener('submit', (event) => {
    event.preventDefault()
    if (write.text.value !== '') socket.send(write.text.value)
    write.reset()
  })
  $('.end', panel).addEventListener('click', () => {
    if (socket.readyState === WebSocket.CLOSED) panel.remove()
    else socket.close(1000)
  })
}

function claimsOf({ channels, mode, name, seconds }) {
  const names = channels
    .split(',')
    .map((channel) => channel.trim())
    .filter(Boolean)
  return { mode, channels: names, name, exp: Math.floor(Date.now() / 1000) + Number(seconds) }
}

/** The SQL that sends a message to a channel's readers. */
function answer(channel) {
  const quoted = channel.replaceAll("'", "''")
  return `select pg_notify('postgres-websockets-listener',\n  json_build_object('event', 'WebsocketMessage',\n    'channel', '${quoted}', 'payload', 'hello from SQL')::text);`
}

/** Signs a token with HS256. Your server does this, for users whom it knows; a page that holds the secret lets everyone in. */
function sign(claims, secret) {
  const encode = (bytes) =>
    btoa(String.fromCharCode(...bytes))
      .replaceAll('+', '-')
      .replaceAll('/', '_')
      .replaceAll('=', '')
  const utf8 = new TextEncoder()
  const head = encode(utf8.encode(JSON.stringify({ alg: 'HS256', typ: 'JWT' })))
  const body = encode(utf8.encode(JSON.stringify(claims)))
  return `${head}.${body}.${encode(hmac(utf8.encode(secret), utf8.encode(`${head}.${body}`)))}`
}

/** HMAC (RFC 2104) by hand: crypto.subtle is missing where a phone opens this page by the address of a machine, without TLS. */
function hmac(key, message) {
  const block = new Uint8Array(64)
  block.set(key.length > 64 ? sha256(key) : key)
  const inner = sha256(Uint8Array.of(...block.map((byte) => byte ^ 0x36), ...message))
  return sha256(Uint8Array.of(...block.map((byte) => byte ^ 0x5c), ...inner))
}

/** SHA-256 (FIPS 180-4). */
function sha256(message) {
  const primes = []
  for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n)
  const fraction = (number) => ((number % 1) * 2 ** 32) | 0
  const k = primes.map((prime) => fraction(prime ** (1 / 3)))
  const state = primes.slice(0, 8).map((prime) => fraction(prime ** (1 / 2)))
  const padded = new Uint8Array(Math.ceil((message.length + 9) / 64) * 64)
  padded.set(message)
  padded[message.length] = 0x80
  const view = new DataView(padded.buffer)
  view.setUint32(padded.length - 4, message.length * 8)
  const rotate = (x, n) => (x >>> n) | (x << (32 - n))
  for (let offset = 0; offset < padded.length; offset += 64) {
    const w = Array.from({ length: 64 }, (_, i) => (i < 16 ? view.getInt32(offset + i * 4) : 0))
    for (let i = 16; i < 64; i++) {
      const [a, b] = [w[i - 15], w[i - 2]]
      w[i] =
        (w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ (a >>> 3)) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ (b >>> 10))) | 0
    }
    let [a, b, c, d, e, f, g, h] = state
    for (let i = 0; i < 64; i++) {
      const one = (h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0
      const two = ((rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0
      ;[h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0]
    }
    for (const [i, value] of [a, b, c, d, e, f, g, h].entries()) state[i] = (state[i] + value) | 0
  }
  const digest = new DataView(new ArrayBuffer(32))
  for (const [i, value] of state.entries()) digest.setInt32(i * 4, value)
  return new Uint8Array(digest.buffer)
}

const form = $('#open')
const values = () => Object.fromEntries(new FormData(form))
const preview = () => {
  $('#claims').textContent = JSON.stringify(claimsOf(values()), null, 2)
}
form.addEventListener('input', preview)
form.addEventListener('submit', (event) => {
  event.preventDefault()
  addSocket(values())
})
preview()

let watching
$('#meta-watch').addEventListener('click', () => {
  watching?.close(1000)
  const claims = { mode: 'r', channels: [$('#meta-channel').value], exp: Math.floor(Date.now() / 1000) + 86_400 }
  watching = openSocket(sign(claims, values().secret))
  follow(watching, $('#meta-state'), claims)
  watching.addEventListener('message', ({ data }) => show($('#meta-messages'), data))
})
$('#meta-watch').click()
