/** Owns what a request is answered: an upgrade is one of the way in, any other gets a file or a refusal. */
import { Hono } from 'hono'
import { getMimeType } from 'hono/utils/mime'
import type { Session } from '../channels/session.ts'
import { isRefusal, refusalAnswer } from '../refusal.ts'
import type { FileBody, Handlers } from '../runtime/contract.ts'
import { type AdmissionOptions, createAdmission, readPath } from './admission.ts'
import { createStaticFiles } from './static.ts'
import { createUpgrades, isUpgrade, type UpgradesOptions } from './upgrade.ts'

export interface RoutesOptions extends AdmissionOptions, Pick<UpgradesOptions, 'protocols' | 'maxSubscriptions'> {
  readonly rootPath: string | undefined
  readonly fileBody: FileBody
}

export function createRoutes(options: RoutesOptions): Handlers<Session>['request'] {
  const { rootPath, fileBody, log, product } = options
  const admission = createAdmission(options)
  const upgrades = createUpgrades({ ...options, admission })
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
    log.error('request failed', { reason: error instanceof Error ? error.message : String(error) })
    return refusalAnswer('INTERNAL', product)
  }

  // Hono makes some ten objects for each request, of which an upgrade needs none.
  return (request, upgrade, peerAddress) => {
    if (!isUpgrade(request)) return app.fetch(request)
    try {
      const answered = upgrades(request, upgrade, peerAddress)
      return answered instanceof Promise ? answered.catch(failed) : answered
    } catch (error) {
      return failed(error)
    }
  }
}
