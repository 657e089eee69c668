/** Owns the breaks of channels: envelopes, who reads what, and sessions. */
import type { Mutant } from './mutant.ts'

const envelope = { file: 'lib/channels/envelope.ts', test: 'test/unit/envelope.test.ts' }
const json = { file: 'lib/channels/json.ts', test: 'test/unit/envelope.test.ts' }
const hub = { file: 'lib/channels/hub.ts', test: 'test/unit/hub.test.ts' }

export const channels: readonly Mutant[] = [
  {
    ...envelope,
    find: 'Math.max(previous + 1, Math.floor(now * 1000))',
    replace: 'Math.floor(now * 1000)',
    promise: 'message_delivered_at strictly increases, so that no two messages are alike',
    title: 'strictly increases',
  },
  {
    ...envelope,
    find: 'name !== STAMP_CLAIM && ',
    replace: '',
    promise: 'No token can say message_delivered_at for the server',
    title: 'has the server stamp in place',
  },
  {
    ...envelope,
    find: 'UNIT_BYTES = 3',
    replace: 'UNIT_BYTES = 2',
    promise: 'An envelope that is too large for NOTIFY is known as one',
    title: 'counts its bytes',
  },
  {
    file: 'lib/refusal.ts',
    find: 'NOTIFICATION_BYTES = 8000',
    replace: 'NOTIFICATION_BYTES = 8001',
    promise: 'An envelope of 8000 bytes closes its sender with 1009',
    test: 'test/contract/messages.test.ts',
    title: 'is too large at 8000 bytes',
  },
  {
    ...envelope,
    find: '(only?.includes(name) ?? true)',
    replace: 'true',
    promise: 'Only the claims of PGWS_FORWARD_CLAIMS reach readers',
    title: 'only the claims that are to be forwarded',
  },
  {
    ...envelope,
    find: "typeof channel === 'string' ? channel : undefined",
    replace: 'channel',
    promise: 'A payload without a string channel goes to the listen channel',
    title: 'is for',
  },
  {
    ...json,
    find: "text[at] === '\\\\' ? 2 : 1",
    replace: '1',
    promise: 'Claims with quotes in them are forwarded as they stand',
    title: 'the members of an object are',
  },
  {
    ...json,
    find: 'at = endOfString(text, at)\n      continue',
    replace: '',
    promise: 'Claims with braces in them are forwarded as they stand',
    title: 'the members of an object are',
  },
  {
    ...hub,
    find: 'if (refusal === undefined) readers.following',
    replace: 'readers.following',
    promise: 'A client is subscribed before its upgrade is answered: one that joins a refused channel is refused',
    title: 'is refused to all who join',
  },
  {
    ...hub,
    find: 'same.count++',
    replace: '',
    promise: 'A channel has readers until the last of them leaves',
    title: 'until the last',
  },
  {
    ...hub,
    find: 'return known.following',
    replace: 'return undefined',
    promise: 'No socket opens before the LISTEN of its database channel stands',
    title: 'wait for the same',
  },
  {
    ...hub,
    find: 'broker.unfollow(channel)',
    replace: '',
    promise: 'A database channel without readers is not listened to',
    title: 'until the last',
  },
  {
    ...hub,
    find: 'map(RegExp.escape)',
    replace: 'map(String)',
    promise: 'A pattern of database channels is taken literally but for *',
    title: 'a pattern',
  },
]
