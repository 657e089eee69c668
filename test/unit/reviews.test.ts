/** When clients are asked about again. */
import { expect, test } from 'bun:test'
import type { Decision, Mode } from '../../lib/access/grant.ts'
import type { Authority } from '../../lib/channels/authority.ts'
import { createReviews, type Reviewed } from '../../lib/channels/reviews.ts'
import { protocols } from '../support/sessions.ts'
import { until } from '../support/until.ts'

const EVERY = 60_000

const reviewed = (): Reviewed => ({
  grant: {
    channels: ['a'],
    mode: 'r',
    named: undefined,
    role: undefined,
    canRead: true,
    canWrite: false,
    claims: '{}',
    expiresAt: Number.POSITIVE_INFINITY,
    rights: new Map<string, Mode>([['a', 'r']]),
  },
  protocol: protocols.plain,
  reviewAt: Number.POSITIVE_INFINITY,
})

test.each(['they came together', 'all were asked about at once', 'the database was away'])(
  'reviews stay spread over the interval where %s',
  async (why) => {
    let time = 0
    let decision: Decision = 'r'
    const authority: Authority = { decide: async (_, channels) => channels.map(() => decision) }
    const sessions = new Set(Array.from({ length: 1000 }, reviewed))
    const reviews = createReviews({
      sessions,
      authority,
      every: EVERY,
      now: () => time,
      isOpen: () => true,
      withdrawn: () => undefined,
      close: () => undefined,
      narrow: () => undefined,
    })
    for (const session of sessions) reviews.opened(session)
    await Bun.sleep(0)
    if (why.startsWith('all')) {
      for (const [index, session] of [...sessions].entries()) session.reviewAt = (index + 1) * (EVERY / sessions.size)
      reviews.all()
      await Bun.sleep(0)
    }
    if (why === 'the database was away') {
      decision = 'AUTHORITY_UNAVAILABLE'
      reviews.all()
      await Bun.sleep(0)
      decision = 'r'
      time = 5000
      await until(() => [...sessions].every(({ reviewAt }) => reviewAt > time))
    }
    const tenths = new Array<number>(10).fill(0)
    for (const { reviewAt } of sessions) {
      const tenth = Math.min(9, Math.floor(((reviewAt - time) / EVERY) * 10))
      tenths[tenth] = (tenths[tenth] ?? 0) + 1
    }
    expect(Math.min(...tenths)).toBeGreaterThan(50)
    expect(Math.max(...tenths)).toBeLessThan(200)
    sessions.clear()
    reviews.closed()
  },
)
