/** Owns the tests' browser: a real Chromium, without a window. */
import { mkdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import chromium from '@sparticuz/chromium'
import { type Browser, chromium as playwright } from 'playwright-core'

/** In a single process, closing the last page ends the browser. Without its security, pages of other origins read what no user's browser shows them. */
const unwanted = ['--single-process', '--disable-web-security', '--allow-running-insecure-content']

export async function startBrowser(): Promise<Browser> {
  return playwright.launch({
    executablePath: await unpackChromium(),
    args: [
      ...chromium.args.filter((flag) => !unwanted.includes(flag)),
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
    ],
    headless: true,
  })
}

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
