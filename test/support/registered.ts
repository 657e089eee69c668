/** Owns clients as the registry knows them, for tests without a server. */
import type { Registered } from '../../lib/channels/registry.ts'

export const client = (id: string, claims = '{}'): Registered => ({
  id,
  address: '127.0.0.1',
  grant: { mode: 'r', claims },
  channels: ['chat'],
  protocol: { name: 'plain' },
  admittedAt: 0,
  openedAt: 0,
})
