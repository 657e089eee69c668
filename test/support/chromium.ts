/** Owns the tests' Chromium. */
import { mkdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import chromium from '@sparticuz/chromium'
import { type Browser, chromium as playwright } from 'playwright-core'

export const launchChromium = async (): Promise<Browser> =>
  playwright.launch({
    executablePath: await unpackChromium(),
    args: [
      // In a single process, closing the last page ends the browser.
      ...chromium.args.filter((flag) => flag !== '--single-process'),
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
    ],
    headless: true,
  })

/** The package unpacks into the folder of temporary files under a fixed name, where another user's may lie. */
async function unpackChromium(): Promise<string> {
  const shared = process.env.TMPDIR
  process.env.TMPDIR = join(tmpdir(), `pgws-chromium-${process.getuid?.()}`)
  mkdirSync(process.env.TMPDIR, { recursive: true })
  const path = await chromium.executablePath()
  if (shared === undefined) delete process.env.TMPDIR
  else process.env.TMPDIR = shared
  return path
}
