/**
 * Owns what the example page gets of `npm start` and of no other server: a folder to be served from, tokens for whoever asks, and orders. Your
 * own server gives tokens to users whom it knows, and writes your tables.
 */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import postgres from 'postgres'

export interface Trial {
  /** The example page, with a file that names this trial. */
  readonly folder: string
  /** The page is served on this port: it alone may ask. */
  allow(port: string): void
  stop(): Promise<void>
}

export interface TrialOptions {
  readonly page: string
  /** What tokens are signed with. */
  readonly secret: string
  /** A database with the journal, which gets a table of orders; undefined for one that is not ours. */
  readonly uri: string | undefined
}

/** Short, so that the page is seen to renew it. */
const TOKEN_SECONDS = 300

const TABLE = `
create table if not exists orders (
  id bigint generated always as identity primary key, item text not null, status text not null default 'new');
drop trigger if exists orders_published on orders;
create trigger orders_published after insert or update or delete on orders
  for each row execute function pgws.publish_change('orders')`

export async function startTrial({ page, secret, uri }: TrialOptions): Promise<Trial> {
  const folder = mkdtempSync(join(tmpdir(), 'pgws-page-'))
  cpSync(page, folder, { recursive: true })
  const sql = uri === undefined ? undefined : postgres(uri, { max: 1, onnotice: () => undefined })
  await sql?.unsafe(TABLE)
  let port = ''

  async function answer(request: IncomingMessage): Promise<object | undefined> {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost')
    const [, id] = /^\/orders\/(\d+)$/.exec(pathname) ?? []
    if (pathname === '/token') return { token: await sign(searchParams.get('name') ?? 'nobody', secret) }
    if (request.method !== 'POST' || !sql) return undefined
    if (pathname === '/orders')
      await sql`insert into orders (item) select (array['tea', 'coffee', 'cocoa', 'cake'])[1 + floor(random() * 4)]`
    else if (id) await sql`update orders set status = 'sent' where id = ${id}`
    else return undefined
    return {}
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { origin = '' } = request.headers
    if (!/^https?:\/\/(localhost|127\.0\.0\.1):\d+$/.test(origin) || !origin.endsWith(`:${port}`)) return end(response, 403)
    response.setHeader('Access-Control-Allow-Origin', origin)
    try {
      const found = await answer(request)
      end(response, found ? 200 : 404, found)
    } catch {
      end(response, 503)
    }
  }

  const server = createServer((request, response) => void handle(request, response))
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  writeFileSync(
    join(folder, 'start.json'),
    JSON.stringify({ url: `http://127.0.0.1:${address.port}/`, orders: sql !== undefined }),
  )

  return {
    folder,
    allow: (served) => {
      port = served
    },
    async stop() {
      server.closeAllConnections()
      server.close()
      await sql?.end({ timeout: 1 })
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function end(response: ServerResponse, status: number, body: object = {}): void {
  response.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' })
  response.end(JSON.stringify(body))
}

const sign = (name: string, secret: string): Promise<string> =>
  new SignJWT({ mode: 'rw', channels: ['chat', 'orders', 'server-info'], name })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(`${TOKEN_SECONDS}s`)
    .sign(new TextEncoder().encode(secret))
