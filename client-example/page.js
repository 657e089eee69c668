// Two people chat and watch a table: each has a connection of their own, as if they sat at two machines. What an application needs of it
// is connect(), subscribe() and publish(); the rest shows things.

import { connect } from './postgres-websockets.js'

const $ = (selector, within = document) => within.querySelector(selector)

/** Lines that a list keeps, and rows of a table. */
const MOST_LINES = 100
const MOST_ROWS = 5

/** Milliseconds without an answer before a message is shown as one that waits. */
const SLOW = 500

/** Who gives tokens and takes orders: `npm start` leaves a file that says where. On any other server there is none. */
async function findStarter() {
  const answer = await fetch('start.json', { cache: 'no-store' })
  return answer.ok ? answer.json() : undefined
}

/** Your application asks your own server, which knows who is logged in. */
async function askStarter(path, options) {
  const starter = await findStarter()
  const answer = await fetch(starter.url + path, options)
  if (!answer.ok) throw new Error(`The database cannot be reached (${answer.status})`)
  return answer.json()
}

/** The newest line comes first, so that nothing has to scroll. */
function prepend(list, ...content) {
  const item = document.createElement('li')
  item.append(...content)
  list.prepend(item)
  while (list.children.length > MOST_LINES) list.lastChild.remove()
  return item
}

function element(name, text, kind = '') {
  const made = document.createElement(name)
  made.textContent = text
  made.className = kind
  return made
}

const tell = (who, what) => prepend($('#events'), element('b', who), ` ${what}`)

/** What a client publishes comes in an envelope with its claims; what SQL publishes is any text. */
function showMessage(list, { text, json }) {
  const isEnvelope = json?.event === 'WebsocketMessage'
  const said = isEnvelope ? json.payload : (json ?? text)
  const name = isEnvelope ? (json.claims?.name ?? 'SQL') : 'SQL'
  prepend(list, element('b', name), ` ${typeof said === 'string' ? said : JSON.stringify(said)}`)
}

const states = {
  connecting: 'connecting …',
  open: 'connected',
  waiting: 'no connection: trying again',
  closed: 'closed',
}

function showPerson(name, channel, getToken, takesOrders) {
  const panel = $('#person').content.cloneNode(true).firstElementChild
  $('#people').append(panel)
  $('h2', panel).textContent = name

  const client = connect(new URL('.', location.href), { getToken })
  const showState = (state) => {
    $('.state', panel).textContent = states[state]
    $('.state', panel).className = `state ${state}`
    tell(name, states[state])
  }
  showState(client.state)
  client.on('state', showState)
  client.on('error', ({ message, channel: of }) => tell(name, of ? `${of}: ${message}` : message))
  client.on('missed', ({ channel: of }) => tell(name, `may have missed messages on ${of}`))

  const subscribe = (of, beginning, show) =>
    client.subscribe(of, beginning, (message) => {
      prepend($('#raw'), element('b', `${name}, ${of}`), element('pre', message.text))
      show(message)
    })
  subscribe(channel, { last: 50 }, (message) => showMessage($('.messages', panel), message))
  subscribe('server-info', {}, ({ json }) => tell('server', `${json?.event} ${json?.payload ?? ''}`))
  showOrders($('.orders', panel), (show) => subscribe('orders', { last: 50 }, show), takesOrders)

  $('.write', panel).addEventListener('submit', async (event) => {
    event.preventDefault()
    const { text } = event.target.elements
    const said = text.value
    if (said === '') return
    event.target.reset()
    await send(client, channel, said, panel)
  })
}

/** A message is stored when its promise settles. Until then it is sent again, whatever happens to the connection. */
async function send(client, channel, text, panel) {
  let waiting
  const timer = setTimeout(() => {
    waiting = prepend($('.pending', panel), `not stored yet: ${text}`)
  }, SLOW)
  try {
    await client.publish(channel, text)
  } catch (error) {
    prepend($('.messages', panel), element('span', `not sent: ${text} (${error.message})`, 'refused'))
  } finally {
    clearTimeout(timer)
    waiting?.remove()
  }
}

/** The table is what the changes in the journal add up to. */
function showOrders(part, subscribe, takesOrders) {
  const rows = new Map()
  const act = async (path) => {
    const refused = $('.refused', part)
    try {
      await askStarter(path, { method: 'POST' })
      refused.hidden = true
    } catch (error) {
      refused.textContent = `No order was placed: ${error.message}`
      refused.hidden = false
    }
  }
  const showRow = ({ id, item, status }) => {
    const row = document.createElement('tr')
    const action = document.createElement('td')
    row.append(element('td', id), element('td', item), element('td', status), action)
    if (takesOrders && status === 'new') {
      const button = element('button', 'Send')
      button.setAttribute('aria-label', `Send order ${id}`)
      button.addEventListener('click', () => act(`orders/${id}`))
      action.append(button)
    }
    return row
  }
  const subscription = subscribe(({ json }) => {
    const row = json?.new ?? json?.old
    if (row?.id === undefined) return
    if (json.op === 'DELETE') rows.delete(row.id)
    else rows.set(row.id, row)
    const newest = [...rows.values()].sort((one, other) => other.id - one.id)
    $('tbody', part).replaceChildren(...newest.slice(0, MOST_ROWS).map(showRow))
  })
  // A token that does not name the channel is none for this part.
  subscription.ready.then(
    () => {
      part.hidden = false
    },
    () => undefined,
  )
  $('.order', part).hidden = !takesOrders
  $('.order', part).addEventListener('click', () => act('orders'))
}

/** Without a starter: both people use one token, which the tab keeps. */
async function askForToken() {
  const form = $('#ask')
  form.hidden = false
  await new Promise((done) => {
    form.addEventListener('submit', (event) => {
      event.preventDefault()
      done()
    })
  })
  form.hidden = true
  sessionStorage.setItem('token', form.elements.token.value.trim())
}

/** The claims of a token; none where it is no token, which the server will say. */
function claimsOf(token) {
  try {
    return JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')))
  } catch {
    return {}
  }
}

const starter = await findStarter()
if (starter) {
  for (const name of ['Ada', 'Grace']) {
    const getToken = async () => (await askStarter(`token?name=${name}`)).token
    showPerson(name, 'chat', getToken, starter.orders)
  }
} else {
  if (!sessionStorage.getItem('token')) await askForToken()
  const token = sessionStorage.getItem('token')
  const { channel, channels = [] } = claimsOf(token)
  for (const name of ['One', 'Two']) showPerson(name, channel ?? channels[0] ?? 'chat', () => token, false)
}
