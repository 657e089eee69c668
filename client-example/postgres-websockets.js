/**
 * Owns a connection to postgres-websockets that mends itself: it comes back, resumes what it reads, and sends again what had no answer.
 * One file without dependencies, for browsers, Node 22, Bun and Deno. docs/client.md says how to use it.
 */

/** Milliseconds before the next try: any time between the shortest and a bound that doubles with each try, up to the longest. */
const SHORTEST_WAIT = 500
const LONGEST_WAIT = 20_000

/** Milliseconds that a try may take, the token included. */
const CONNECT_LIMIT = 20_000

/** Milliseconds between pings, and within which something has to come then. */
const PING_EVERY = 15_000
const PING_LIMIT = 10_000

/** Milliseconds that a notification may need to come to the server. */
const UNDER_WAY = 1000

/** What may wait for its answer: more is refused. The server itself keeps 20,000 of a connection. */
const MOST_PUBLISHES = 10_000
const MOST_CHARACTERS = 16_777_216

/** Bytes that the socket may hold before more is handed to it, so that a ping is never far behind. In milliseconds it is looked again. */
const SOCKET_BYTES = 262_144
const SOCKET_LOOK = 20

/** Milliseconds between commands after the server called them too fast; doubles each time. */
const SHORTEST_GAP = 50
const LONGEST_GAP = 1000

/** Milliseconds at most before what was refused for now is asked for again. */
const LATER_WAIT = 2000

/** Milliseconds from its first sending within which a message may be sent again: the server knows its key for an hour. */
const KEY_LIMIT = 3_000_000

/** What is refused for now. All else is refused for good. */
const LATER = [
  'BUFFER_FULL',
  'HISTORY_UNAVAILABLE',
  'INTERNAL',
  'KEYS_UNAVAILABLE',
  'TOKEN_UNDER_WAY',
  'TOO_MANY_CHANNELS',
  'TOO_MANY_UNANSWERED',
]

const CLOSED = 1000
const TOO_FAST = 1008
const TOO_LARGE = 1009

export function connect(url, { getToken }) {
  const address = new URL(url, globalThis.location?.href)
  address.protocol = address.protocol.replace('http', 'ws')
  address.searchParams.set('subscribe', 'none')
  const listeners = { state: new Set(), missed: new Set(), error: new Set() }
  /** Subscriptions and publishes by their id, in the order in which they were asked for. */
  const items = new Map()
  const subscriptions = new Map()
  /** What is to be sent on this connection. */
  let queue = []
  let ids = 0
  // Not crypto.randomUUID(), which pages without TLS do not have.
  const keys = crypto.getRandomValues(new Uint32Array(4)).join('.')
  let publishes = 0
  let characters = 0
  let state
  let socket
  /** What comes late, of an earlier connection, finds another number here. */
  let tries = 0
  /** Tries since a connection held. */
  let failures = 0
  let wasHeard
  /** When the latest ping was sent that was answered: all that the server had by then has come. */
  let sureAt
  let gap = 0
  /** Of the try that is next or under way, and of the pings of an open connection. */
  let timer
  /** While it runs nothing is sent. */
  let pause
  let renewal

  function emit(type, value) {
    for (const listener of listeners[type]) call(listener, value)
  }

  function become(next) {
    if (state === next) return
    state = next
    emit('state', state)
  }

  const wait = (bound) => SHORTEST_WAIT + Math.random() * (Math.min(LONGEST_WAIT, bound) - SHORTEST_WAIT)

  async function open() {
    const mine = ++tries
    clearTimeout(timer)
    timer = setTimeout(lost, CONNECT_LIMIT, 'no answer in time')
    become('connecting')
    try {
      const token = await getToken()
      if (mine !== tries) return
      socket = new WebSocket(address.href, ['pgws.json', `pgws.token.${token}`])
    } catch (error) {
      if (mine === tries) lost(reasonOf(error), error)
      return
    }
    socket.onmessage = ({ data }) => {
      if (mine === tries) hear(JSON.parse(data))
    }
    socket.onclose = ({ code, reason }) => {
      if (mine !== tries) return
      if (code === TOO_FAST) gap = Math.min(LONGEST_GAP, 2 * gap || SHORTEST_GAP)
      if (code === TOO_LARGE) refuseLargest(reason)
      lost(`closed with ${code} ${reason || (state === 'open' ? '' : '(the server is away, or refuses the token)')}`)
    }
  }

  /** The connection, or the try, is over. */
  function lost(reason, cause) {
    leave()
    for (const subscription of subscriptions.values()) {
      if (subscription.stands) subscription.stoodUntil = Math.max(sureAt, subscription.askedAt) - UNDER_WAY
      subscription.stands = false
    }
    timer = setTimeout(open, wait(SHORTEST_WAIT * 2 ** ++failures))
    become('waiting')
    emit('error', fault('NOT_CONNECTED', `Not connected: ${reason}`, undefined, cause))
  }

  function leave() {
    tries++
    for (const each of [timer, pause, renewal]) clearTimeout(each)
    pause = undefined
    queue = []
    // One that is dead closes when it will: nobody waits for it.
    socket?.close(CLOSED)
    socket = undefined
  }

  function watch() {
    clearTimeout(timer)
    timer = setTimeout(ping, PING_EVERY)
  }

  /** A socket that gets rid of bytes is not dead either. */
  function ping() {
    failures = 0
    wasHeard = false
    send({ id: Date.now(), command: 'ping' })
    const { bufferedAmount } = socket
    clearTimeout(timer)
    timer = setTimeout(() => {
      if (wasHeard || socket.bufferedAmount < bufferedAmount) watch()
      else lost('the server fell silent')
    }, PING_LIMIT)
  }

  /** The browser's network came back: it may be another one. */
  function online() {
    if (state === 'open') return ping()
    leave()
    void open()
  }

  async function renew() {
    const mine = tries
    try {
      const token = await getToken()
      if (mine === tries) send({ id: 'token', command: 'token', token })
    } catch (error) {
      if (mine === tries) notRenewed(fault('NO_TOKEN', reasonOf(error), undefined, error))
    }
  }

  /** Should it never be, the connection ends with its token, and the next one begins with another. */
  function notRenewed(error) {
    clearTimeout(renewal)
    renewal = setTimeout(renew, wait(LONGEST_WAIT))
    emit('error', error)
  }

  const send = (command) => socket.send(JSON.stringify(command))

  /** Sends what is to be sent, as fast as the network and the server take it. */
  function pump() {
    while (queue.length > 0 && pause === undefined) {
      if (socket.bufferedAmount > SOCKET_BYTES) return pauseFor(SOCKET_LOOK)
      if (gap > 0) pauseFor(gap)
      const item = queue.shift()
      // It may have been settled meanwhile.
      if (items.get(item.id) !== item) continue
      if (item.subscribed) {
        item.askedAt = Date.now()
        const { id, channel, position, last } = item
        send({ id, command: 'subscribe', channel, ...(position ? { since: position } : { last }) })
        continue
      }
      item.sentAt ??= Date.now()
      const { id, channel, text, sentAt } = item
      if (Date.now() - sentAt < KEY_LIMIT) send({ id, command: 'publish', channel, text, key: `${keys}.${id}` })
      else settle(item, fault('OUTCOME_UNKNOWN', 'Sent too long ago to be sent again', channel))
    }
  }

  function pauseFor(milliseconds) {
    clearTimeout(pause)
    pause = setTimeout(() => {
      pause = undefined
      pump()
    }, milliseconds)
  }

  /** Keeps what is asked for until it is settled. */
  function ask(item) {
    item.id = ++ids
    const settled = new Promise((resolve, reject) => Object.assign(item, { resolve, reject }))
    items.set(item.id, item)
    if (state === 'open') {
      queue.push(item)
      pump()
    }
    return settled
  }

  /** Nothing is to be sent, or sent again, of a publish that is settled, nor of a subscription that ended. */
  function settle(item, error) {
    items.delete(item.id)
    if (item.subscribed) {
      if (subscriptions.get(item.channel) === item) subscriptions.delete(item.channel)
    } else {
      publishes--
      characters -= item.text.length
    }
    if (error) item.reject(error)
    else item.resolve()
  }

  function refuseLargest(reason) {
    const sent = [...items.values()].filter(({ sentAt }) => sentAt)
    const [largest] = sent.sort((one, other) => other.text.length - one.text.length)
    if (largest) settle(largest, fault('TOO_LARGE', reason, largest.channel))
  }

  function hear(event) {
    wasHeard = true
    const { id, channel, code } = event
    const item = items.get(id)
    const subscription = subscriptions.get(channel)
    switch (event.event) {
      case 'Connected':
        queue = [...items.values()]
        sureAt = 0
        watch()
        become('open')
        return pump()
      case 'Message':
        // Until its answer has come, messages are those of an earlier subscription to the channel.
        return subscription?.stands && receive(subscription, event)
      case 'Pong':
        sureAt = id
        return
      case 'MessagesMissed':
        return emit('missed', { channel, from: event.from, to: event.to })
      case 'TokenExpiring':
        return renew()
      case 'Published':
        return item && settle(item)
      case 'Subscribed':
        return item && subscribed(item, event)
      case 'Unsubscribed':
        // By the server, where it says why.
        return code && subscription?.stands && end(subscription, fault(code, 'The subscription ended', channel))
      case 'Refused':
        return refused(id, item, fault(code, event.reason, item?.channel))
    }
  }

  function receive(subscription, { channel, text, position }) {
    // It is not asked for again, whatever the listener does.
    if (position) subscription.position = position
    subscription.isJournaled = position !== undefined && subscription.isJournaled !== false
    call(subscription.listener, message(channel, text, position))
  }

  function subscribed(subscription, { channel, position }) {
    subscription.stands = true
    subscription.position = position
    subscription.resolve()
    // What is not in the journal is not there behind a position.
    if (subscription.stoodUntil && !(position && subscription.isJournaled))
      emit('missed', { channel, from: subscription.stoodUntil / 1000, to: Date.now() / 1000 })
  }

  function refused(id, item, error) {
    if (id === 'token') return notRenewed(error)
    if (!item) return
    if (LATER.includes(error.code)) {
      queue.push(item)
      pauseFor(wait(LATER_WAIT))
    } else if (item.subscribed) end(item, error)
    else settle(item, error)
  }

  function end(subscription, error) {
    settle(subscription, error)
    emit('error', error)
  }

  void open()
  globalThis.addEventListener?.('online', online)

  return {
    get state() {
      return state
    },
    subscribe(channel, { since, last }, listener) {
      if (subscriptions.has(channel)) throw new Error(`There is a subscription to ${channel} already`)
      const item = { subscribed: true, channel, position: since, last, listener }
      if (state !== 'closed') subscriptions.set(channel, item)
      const ready = state === 'closed' ? Promise.reject(closed(channel)) : ask(item)
      // Who does not wait for it hears of it as an error.
      ready.catch(() => undefined)
      return {
        ready,
        unsubscribe() {
          if (!items.has(item.id)) return
          if (state === 'open' && !queue.includes(item)) send({ command: 'unsubscribe', channel })
          settle(item, fault('NOT_SUBSCRIBED', 'Unsubscribed', channel))
        },
      }
    },
    async publish(channel, text) {
      if (state === 'closed') throw closed(channel)
      if (publishes >= MOST_PUBLISHES || characters + text.length > MOST_CHARACTERS)
        throw fault('BUFFER_FULL', 'Too much waits to be published', channel)
      publishes++
      characters += text.length
      return ask({ channel, text })
    },
    on(type, listener) {
      listeners[type].add(listener)
      return () => void listeners[type].delete(listener)
    },
    close() {
      if (state === 'closed') return
      leave()
      globalThis.removeEventListener?.('online', online)
      for (const item of items.values()) settle(item, closed(item.channel))
      become('closed')
    },
  }
}

/** What goes wrong in a listener is its own matter: it is reported as from any event's listener. */
function call(listener, value) {
  try {
    listener(value)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}

function fault(code, message, channel, cause) {
  return Object.assign(new Error(message, { cause }), { code, channel })
}

const reasonOf = (error) => error?.message ?? String(error)

const closed = (channel) => fault('CLOSED', 'This client was closed', channel)

/** `json` costs nothing where nobody reads it, and is undefined for a text that is none. */
function message(channel, text, position) {
  let json
  let isParsed = false
  return {
    channel,
    text,
    position,
    get json() {
      if (isParsed) return json
      isParsed = true
      try {
        json = JSON.parse(text)
      } catch {
        // Any text can be published.
      }
      return json
    },
  }
}
