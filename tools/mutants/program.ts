/** Owns the breaks of what stands around the two ways of data: metrics, log, --check, waits, and the server that joins them. */
import type { Mutant } from './mutant.ts'

const waiting = { file: 'lib/waiting.ts', test: 'test/unit/waiting.test.ts' }
const metrics = { file: 'lib/metrics.ts', test: 'test/unit/metrics.test.ts' }
const server = { file: 'lib/server.ts', test: 'test/contract/drain.test.ts' }

export const program: readonly Mutant[] = [
  {
    ...waiting,
    find: 'LONGEST = 3000',
    replace: 'LONGEST = 30_000',
    promise: 'Waits between attempts to heal grow to 5 s at most',
    title: 'the waits grow',
  },
  {
    ...waiting,
    find: '(0.5 + Math.random() / 2)',
    replace: '1',
    promise: 'No two servers try in step',
    title: 'no two servers',
  },
  {
    ...waiting,
    find: 'attempts = 0\n    }',
    replace: '}',
    promise: 'After a success the next attempt comes at once',
    title: 'the waits grow',
  },
  {
    ...metrics,
    find: 'below += counts[index] ?? 0',
    replace: 'below = counts[index] ?? 0',
    promise: 'Buckets of /metrics count as Prometheus reads them',
    title: 'a bucket counts',
  },
  {
    ...metrics,
    find: "replaceAll(/[\\\\\"]/g, '\\\\$&')",
    replace: 'trim()',
    promise: 'Labels of /metrics are escaped',
    title: 'whatever that holds',
  },
  {
    file: 'lib/doctor.ts',
    find: 'Date.parse(validTo) <= now',
    replace: 'Date.parse(validTo) < now',
    promise: '--check says that a certificate has expired',
    test: 'test/unit/doctor.test.ts',
    title: 'a certificate is well until its end',
  },
  {
    file: 'lib/doctor.ts',
    find: "yield await attempt('database', async () => {",
    replace:
      "yield await ((_: string, look: () => Promise<string>) => look().then((found) => ({ name: '', isWell: true, found })))('database', async () => {",
    promise: '--check tries everything, whatever fails',
    test: 'test/unit/doctor.test.ts',
    title: 'the rest untried',
  },
  {
    ...server,
    find: 'end - performance.now()',
    replace: 'end - performance.now() - (Date.now() - performance.timeOrigin - performance.now())',
    promise: 'A clock that is set while the server drains changes nothing about PGWS_SHUTDOWN_TIMEOUT',
    test: 'test/system/clock.test.ts',
    title: 'while the server drains',
  },
  {
    ...server,
    find: 'await orAfter(left(), notifier.drained())',
    replace: '',
    promise: 'On SIGTERM everything accepted is in the database',
    title: 'takes its time for a commit',
  },
  {
    ...server,
    find: 'await running.hungUp(Math.min(CLOSE_PATIENCE, left()))',
    replace: '',
    promise: 'On SIGTERM a client that writes on sees 1001 too',
    test: 'test/contract/farewell.test.ts',
    title: 'writers that write on',
  },
  {
    file: 'lib/runtime/closing.ts',
    find: 'left <= 0 || ',
    replace: '',
    promise: 'A client that does not hang up does not keep the server from its end',
    test: 'test/contract/farewell.test.ts',
    title: 'does not hang up',
  },
  {
    ...server,
    find: 'running.stopAccepting()',
    replace: '',
    promise: 'While it drains the server takes no further connection',
    title: 'while it drains the server',
  },
  {
    ...server,
    find: 'channel !== config.listenChannel &&',
    replace: '',
    promise: 'The listen channel is never received directly',
    test: 'test/contract/channels.test.ts',
    title: 'is never the listen channel',
  },
  {
    ...server,
    find: 'if (next.tls && ',
    replace: 'if (next.tls && conninfo === undefined && ',
    promise: 'SIGHUP shows a renewed certificate to who connects from then on',
    test: 'test/contract/logs.test.ts',
    title: 'takes over another secret',
  },
  {
    file: 'lib/runtime/bun.ts',
    find: 'await bind(options.port, options.tls)',
    replace: 'await bind(0, options.tls)',
    promise: 'After SIGKILL, the next start serves on the same port',
    test: 'test/faults/lost-sessions.test.ts',
    title: 'a server killed under load',
  },
  {
    file: 'lib/doors/upgrade.ts',
    find: 'if (ready === undefined) return',
    replace: 'if (ready !== null) return',
    promise: 'What is notified after a client has seen its socket open reaches it',
    test: 'test/contract/channels.test.ts',
    title: 'what is notified after a client has seen',
  },
  {
    file: 'lib/doors/static.ts',
    find: "return refuse('PATH_FORBIDDEN')\n    const stats",
    replace: 'console.error(path)\n    const stats',
    promise: 'Garbage reads no file outside the root',
    test: 'test/faults/hostile.test.ts',
  },
]
