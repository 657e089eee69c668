/** Owns the breaks of the example page, and of what `npm start` gives it. */
import type { Mutant } from './mutant.ts'

const page = { file: 'client-example/page.js', test: 'test/contract/page.test.ts' }

export const examplePage: readonly Mutant[] = [
  {
    ...page,
    find: 'subscribe(channel, { last: 50 }',
    replace: 'subscribe(channel, {}',
    promise: 'What was said is there after a reload of the example page',
    title: 'after a reload, what was said and ordered is there',
    hangs: true,
  },
  {
    ...page,
    find: '    waiting?.remove()\n',
    replace: '',
    promise: 'A message that is stored is not shown as waiting',
    title: 'a server that stops is seen',
  },
  {
    ...page,
    find: 'list.prepend(item)',
    replace: 'list.append(item)\n  item.scrollIntoView()',
    promise: 'The example page does not scroll by itself',
    title: 'nothing scrolls or grows by itself',
  },
  {
    ...page,
    find: "client.on('state', showState)",
    replace: '',
    promise: 'A server that stops is seen on the example page',
    title: 'a server that stops is seen',
    hangs: true,
  },
  {
    file: 'tools/start/trial.ts',
    test: page.test,
    find: ' || !origin.endsWith(`:',
    replace: ' && !origin.endsWith(`:',
    promise: 'npm start gives tokens to its own page alone',
    title: 'npm start gives tokens and takes orders of its own page alone',
  },
]
