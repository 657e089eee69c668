/** Owns the breaks of the client module. */
import type { Mutant } from './mutant.ts'

const unit = { file: 'client-example/postgres-websockets.js', test: 'test/unit/client-module.test.ts' }
const wire = { ...unit, test: 'test/contract/client-module.test.ts', title: 'in Bun' }

export const client: readonly Mutant[] = [
  {
    ...wire,
    find: 'if (position) subscription.position = position',
    replace: '',
    promise: 'A client resumes at its last position: it sees no journaled message twice',
  },
  {
    ...wire,
    find: '...(position ? { since: position } : { last })',
    replace: 'last',
    promise: 'A client resumes at its last position, not with the last messages',
  },
  {
    ...wire,
    find: "command: 'publish', channel, text, key:",
    replace: "command: 'publish', channel, text, nothing:",
    promise: 'A publish that is sent again is in the database once',
    title: 'a publish whose answer was lost is sent again',
  },
  {
    ...wire,
    find: 'queue = [...items.values()]',
    replace: 'queue = [...subscriptions.values()]',
    promise: 'A publish without an answer is sent again',
    hangs: true,
  },
  {
    ...unit,
    find: "      else lost('the server fell silent')\n",
    replace: '',
    promise: 'A dead connection is noticed',
    title: 'is pinged after 15 s, and given up after 10 s of silence',
  },
  {
    ...unit,
    find: 'setTimeout(open, wait(SHORTEST_WAIT * 2 ** ++failures))',
    replace: 'setTimeout(open, SHORTEST_WAIT * 2 ** ++failures)',
    promise: 'A client comes back with full jitter',
    title: 'is tried again with full jitter',
  },
  {
    ...unit,
    find: 'timer = setTimeout(lost, CONNECT_LIMIT,',
    replace: 'setTimeout(() => undefined, CONNECT_LIMIT,',
    promise: 'A handshake that nobody answers is given up',
    title: 'goes on when no token is to be had, or the server says nothing',
  },
  {
    ...unit,
    find: "globalThis.addEventListener?.('online', online)",
    replace: '',
    promise: 'A client comes back at once when the browser is online',
    title: 'is tried at once when the browser says that it is online',
  },
  {
    ...unit,
    find: '    renewal = setTimeout(renew, wait(LONGEST_WAIT))\n',
    replace: '',
    promise: 'A token that was refused is asked for again',
    title: 'that is refused or not to be had is told, and another one asked for',
  },
  {
    ...unit,
    find: '        return renew()',
    replace: '        return',
    promise: 'A token is renewed when the server says that it ends',
    title: 'is renewed when the server says that it ends',
  },
  {
    ...unit,
    find: 'subscription?.stands && receive',
    replace: 'subscription && receive',
    promise: 'A subscription gets nothing of an earlier one to its channel',
    title: 'can be followed by another one to its channel',
  },
  {
    ...unit,
    find: 'subscription.isJournaled = position !== undefined && subscription.isJournaled !== false',
    replace: 'subscription.isJournaled = position !== undefined',
    promise: 'A channel that also carries notifications says what it may have missed',
    title: 'that is not of the journal says what it may have missed',
  },
  {
    ...unit,
    find: '        sureAt = id\n',
    replace: '        sureAt = Date.now()\n',
    promise: 'What may have been missed begins before the ping that was answered',
    title: 'says what it may have missed since the latest ping',
  },
  {
    ...unit,
    find: 'if (publishes >= MOST_PUBLISHES || characters',
    replace: 'if (characters',
    promise: 'So many publishes wait, and no more',
    title: 'is refused at once where 10,000 wait',
  },
  {
    ...unit,
    find: '      if (code === TOO_LARGE) refuseLargest(reason)\n',
    replace: '',
    promise: 'A message that ends the connection for its size is not sent for ever',
    title: 'that ends the connection for its size is the largest',
  },
  {
    ...unit,
    find: '      if (gap > 0) pauseFor(gap)\n',
    replace: '',
    promise: 'Who was closed for being too fast becomes slower',
    title: 'goes out more slowly after the server called it too fast',
  },
  {
    ...unit,
    find: 'if (Date.now() - sentAt < KEY_LIMIT) send',
    replace: 'if (true) send',
    promise: 'A message is not sent again once its key is forgotten',
    title: 'whose first sending is too long ago for its key',
  },
]
