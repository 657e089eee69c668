/** Owns the README's pictures of the example page: `npm run screenshots` takes them anew, wide and light, narrow and dark. */
import { mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Page } from 'playwright-core'
import { startBrowser } from '../test/support/browser.ts'
import { startJournal } from '../test/support/journal.ts'
import { start } from '../test/support/program.ts'
import { secret } from '../test/support/token.ts'
import { startTrial } from './start/trial.ts'

const root = resolve(import.meta.dir, '..')
const images = resolve(root, 'docs/images')

/** What is said, by whom: 0 is Ada. */
const talk: readonly (readonly [0 | 1, string])[] = [
  [0, 'Did the tea arrive?'],
  [1, 'The truck just left. Watch the table.'],
  [0, 'There it is!'],
]

async function play(page: Page): Promise<void> {
  const people = page.locator('.person')
  await people.nth(1).locator('.state.open').waitFor()
  for (const [who, text] of talk) {
    await people.nth(who).getByRole('textbox').fill(text)
    await people.nth(who).getByRole('textbox').press('Enter')
    await people.nth(1).locator('.messages').getByText(text).waitFor()
  }
  for (let number = 1; number <= 3; number++) {
    await people.nth(0).getByRole('button', { name: 'Place an order' }).click()
    await people
      .nth(1)
      .getByRole('cell', { name: String(number), exact: true })
      .waitFor()
  }
  await people.nth(1).getByRole('button', { name: 'Send order 1' }).click()
  await people.nth(1).getByRole('cell', { name: 'sent' }).waitFor()
}

const journal = await startJournal()
const trial = await startTrial({ page: resolve(root, 'client-example'), secret, uri: journal.uri })
const program = await start({
  PGWS_DB_URI: journal.uri,
  PGWS_ROOT_PATH: trial.folder,
  PGWS_META_CHANNEL: 'server-info',
  PGWS_JOURNAL: 'True',
  PGWS_JOURNAL_CHANNELS: 'chat,orders',
})
trial.allow(String(program.port))
const browser = await startBrowser()
try {
  mkdirSync(images, { recursive: true })
  let isPlayed = false
  for (const [name, colorScheme, width] of [
    ['page', 'light', 900],
    ['page-on-a-phone', 'dark', 360],
  ] as const) {
    const page = await browser.newPage({ colorScheme, viewport: { width, height: 600 } })
    await page.goto(`http://127.0.0.1:${program.port}/`)
    if (!isPlayed) await play(page)
    isPlayed = true
    for (const person of await page.locator('.person').all()) await person.getByRole('cell', { name: 'sent' }).waitFor()
    await page.evaluate('document.activeElement.blur()')
    await page.screenshot({ path: resolve(images, `${name}.png`), fullPage: width > 400, animations: 'disabled' })
    await page.close()
  }
} finally {
  await browser.close()
  await program.stop()
  await trial.stop()
  await journal.stop()
}
