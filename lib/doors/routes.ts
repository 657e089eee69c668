/** Owns what a request is answered: it comes in by one of the doors, or gets a file or a refusal. */
import { Hono } from 'hono'
import { getMimeType } from 'hono/utils/mime'
import type { Session } from '../channels/session.ts'
import { messageOf } from '../fault.ts'
import { isRefusal, refusalAnswer } from '../refusal.ts'
import type { FileBody, Handlers } from '../runtime/contract.ts'
import { inTick } from '../waiting.ts'
import { type AdmissionOptions, createAdmission } from './admission.ts'
import { createCrossOrigin, isPreflight } from './cross-origin.ts'
import { createPosts, isPost, type PostsOptions } from './posts.ts'
import { createStaticFiles } from './static.ts'
import { createStreams, isStream, type StreamsOptions } from './streams.ts'
import { readPath } from './target.ts'
import { createUpgrades, isUpgrade, type UpgradesOptions } from './upgrade.ts'

export interface RoutesOptions
  extends AdmissionOptions,
    Pick<UpgradesOptions, 'protocols'>,
    Pick<StreamsOptions, 'eventStreams'>,
    Pick<PostsOptions, 'post' | 'maxMessagesPerSecond' | 'messageBytes'> {
  readonly rootPath: string | undefined
  readonly fileBody: FileBody
}

type Answer = Handlers<Session>['request']

export function createRoutes(options: RoutesOptions): Answer {
  const { rootPath, fileBody, log, product } = options
  const admission = createAdmission(options)
  const crossOrigin = createCrossOrigin(options.allowedOrigins, product)
  const files = rootPath === undefined ? undefined : createStaticFiles(rootPath, getMimeType, fileBody)
  const app = new Hono()

  app.all('*', async (context) => {
    const request = context.req.raw
    if (!files) {
      context.header('Server', product)
      return context.text(`${product}\nThis is a WebSocket server: connect to /CHANNEL/TOKEN or /TOKEN.\n`)
    }
    const answered = await files.answer(request, readPath(request.url))
    if (isRefusal(answered)) return refusalAnswer(answered.refused, product)
    answered.headers.set('Server', product)
    return answered
  })

  app.onError(failed)

  function failed(error: unknown): Response {
    log.error('request failed', { reason: messageOf(error) })
    return refusalAnswer('INTERNAL', product)
  }

  const guarded =
    (door: Answer): Answer =>
    (request, exchange) => {
      try {
        const answered = door(request, exchange)
        return answered instanceof Promise ? answered.catch(failed) : answered
      } catch (error) {
        return failed(error)
      }
    }

  const shared = (door: Answer): Answer => {
    const answer = guarded(door)
    return (request, exchange) => {
      return inTick(answer(request, exchange), (answered) => crossOrigin.share(request, answered))
    }
  }

  const upgrades = guarded(createUpgrades({ ...options, admission }))
  const streams = shared(createStreams({ ...options, admission }))
  const posts = shared(createPosts({ ...options, admission }))

  // Hono makes some ten objects for each request, of which these need none.
  return (request, exchange) => {
    if (isUpgrade(request)) return upgrades(request, exchange)
    if (isPost(request)) return posts(request, exchange)
    if (isStream(request)) return streams(request, exchange)
    return isPreflight(request) ? crossOrigin.preflight(request) : app.fetch(request)
  }
}
