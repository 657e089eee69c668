/** Owns the admin port's answers: `/live`, `/ready` and `/metrics`, as PostgREST has them. */
import { Hono } from 'hono'
import type { Metrics } from '../metrics.ts'

export interface AdminOptions {
  /** Whether the last round trip through the database succeeded and no drain is under way. */
  readonly isReady: () => boolean
  readonly metrics: Metrics
}

export function createAdmin({ isReady, metrics }: AdminOptions): (request: Request) => Response | Promise<Response> {
  const app = new Hono()
  const plain = { 'Content-Type': 'text/plain; charset=UTF-8' }
  app.get('/live', (context) => context.text('live\n', 200, plain))
  app.get('/ready', (context) => (isReady() ? context.text('ready\n', 200, plain) : context.text('not ready\n', 503, plain)))
  app.get('/metrics', (context) =>
    context.text(metrics.render(), 200, { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' }),
  )
  app.notFound((context) => context.text('Not found\n', 404, plain))
  return (request) => app.fetch(request)
}
