/** Owns the breaks of the broker that its tests see without a database. */
import type { Mutant } from './mutant.ts'

const folder = 'lib/broker/postgres'
const sessions = { file: `${folder}/broker.ts`, test: 'test/unit/broker.test.ts' }
const followed = { file: `${folder}/followed-channels.ts`, test: 'test/unit/broker.test.ts' }
const listener = { file: `${folder}/listener.ts`, test: 'test/unit/listener.test.ts' }
const missed = { file: `${folder}/missed.ts`, test: 'test/unit/missed.test.ts' }
const notifier = { file: `${folder}/notifier.ts`, test: 'test/unit/notifier.test.ts' }
const sending = { file: `${folder}/sending-session.ts`, test: 'test/unit/notifier.test.ts' }
const pipeline = { file: `${folder}/pipeline.ts`, test: 'test/unit/pipeline.test.ts' }
const roundTrip = { file: `${folder}/round-trip.ts`, test: 'test/unit/round-trip.test.ts' }

export const brokerAlone: readonly Mutant[] = [
  {
    ...pipeline,
    find: "sent.length === 0 ? '' : String(posted)",
    replace: "''",
    promise: 'A batch behind another is tied to it',
  },
  {
    ...pipeline,
    find: '(isFull && sent.length < MOST_UNDER_WAY)',
    replace: 'isFull',
    promise: 'No more than four batches are under way',
  },
  {
    ...pipeline,
    find: 'again.length === 0 && (sent',
    replace: '(sent',
    promise: 'Nothing new goes ahead of what is to be sent again',
  },
  {
    ...pipeline,
    find: 'row?.taken === number ? undefined',
    replace: 'row ? undefined',
    promise: 'A batch that the database answered without taking it is not lost',
  },
  {
    ...pipeline,
    find: '|| fault.code === QUEUE_FULL',
    replace: '|| !fault',
    promise: 'Where a batch finds no room in the notification queue, a half of it may',
  },
  {
    ...pipeline,
    find: 'stamp = nextStamp(stamp, now)',
    replace: 'stamp = nextStamp(0, now)',
    promise: 'No two messages bear one stamp',
  },
  {
    ...notifier,
    find: 'session.backend !== undefined && queue.length >= BATCH',
    replace: 'queue.length >= 1',
    promise: 'Only full batches follow each other before their answers',
  },
  {
    ...notifier,
    find: 'session.backend !== undefined && ',
    replace: '',
    promise: 'Batches do not make a session each',
  },
  {
    ...notifier,
    find: 'bytes + more > QUEUE_BYTES',
    replace: 'bytes > QUEUE_BYTES',
    promise: 'A group of messages is taken whole or not at all',
  },
  {
    ...notifier,
    find: 'bytes -= total(taken)',
    replace: 'bytes -= 0 * total(taken)',
    promise: 'The queue has room again for what was sent',
  },
  {
    ...notifier,
    find: 'if (questions.length > 0) await questions.askAll(session.connected, answered)\n      postAll()',
    replace: 'postAll()\n      if (questions.length > 0) await questions.askAll(session.connected, answered)',
    promise: 'Questions go ahead of the queue',
    title: 'a question goes ahead',
  },
  {
    ...notifier,
    find: 'backoff.cut()\n      wake()',
    replace: 'wake()',
    promise: 'A check does not wait for the next attempt to send',
  },
  {
    ...notifier,
    find: 'if (!obstacle) log.warning',
    replace: 'log.warning',
    promise: 'What keeps messages from the database is said once',
  },
  {
    ...notifier,
    find: 'settled.message.settled({ code, reason })',
    replace: "settled.message.settled('committed')",
    promise: 'A sender learns why the database refused a message',
  },
  {
    ...notifier,
    find: "state = 'stopped'\n",
    replace: "state = 'paused'\n",
    promise: 'Nothing is taken after the stop',
  },
  {
    ...sending,
    find: 'abandoned = connection?.server.backend ?? abandoned',
    replace: 'abandoned = undefined',
    promise: 'The process of an abandoned session is ended, for it may keep a lock',
  },
  {
    ...sending,
    find: 'abandoned = undefined\n      return opened',
    replace: 'return opened',
    promise: 'A process is ended once',
  },
  {
    ...sending,
    find: 'opened.close()\n      throw error',
    replace: 'throw error',
    promise: 'A session that cannot end the abandoned process is not left open',
  },
  {
    ...sending,
    find: 'if (isStopped) opened.close()',
    replace: '',
    promise: 'No session outlives the stop',
  },
  {
    ...sending,
    find: 'throw new DatabaseError(fault.message, fault.code, false)',
    replace: 'throw fault',
    promise: 'What refuses a session refuses no message',
  },
  {
    ...listener,
    find: 'await session.listen([first, ...more], notified)\n    return new Set()\n  } catch (error) {\n    if (asDatabaseError(error).isPassing) throw error',
    replace: 'await session.listen([first, ...more], notified)\n    return new Set()\n  } catch {',
    promise: 'Out of memory, or at a shutdown, LISTEN on many channels refuses none of them at the first try',
  },
  {
    ...listener,
    find: 'await session.tryListen(channels)\n    return new Set()\n  } catch (error) {\n    if (asDatabaseError(error).isPassing) throw error',
    replace: 'await session.tryListen(channels)\n    return new Set()\n  } catch {',
    promise: 'Out of memory, or at a shutdown, LISTEN on many channels refuses none of them while a refused one is sought',
  },
  {
    ...listener,
    find: 'return first.union(await refusedOf(session, channels.slice(half)))',
    replace: 'return first',
    promise: 'Every channel that PostgreSQL refuses is found',
  },
  {
    ...listener,
    find: 'if (!isOpen || !fault.answered) return undefined',
    replace: '',
    promise: 'LISTEN on a session that ended refuses no channel',
  },
  {
    ...listener,
    find: 'if (standing.get(channel) !== listening()) return undefined',
    replace: '',
    promise: 'A channel that is given up and wanted anew is listened to, whatever becomes of its first LISTEN',
    test: sessions.test,
    title: 'is given up and wanted anew',
  },
  {
    ...listener,
    find: 'standing.get(channel) ?? listenTo(',
    replace: 'listenTo(',
    promise: 'A channel is listened to once for all who want it',
  },
  {
    ...listener,
    find: "await session.query('select pg_notification_queue_usage()')\n",
    replace: '',
    promise: 'LISTEN does not begin far behind in the notification queue',
  },
  {
    ...listener,
    find: 'LISTEN_LIMIT * (1 + more.length / 1000)',
    replace: 'LISTEN_LIMIT',
    promise: 'LISTEN on many channels has its time',
  },
  {
    ...listener,
    find: 'clearTimeout(deadline)',
    replace: '',
    promise: 'A session that listens is not closed by the limit for its LISTEN',
  },
  {
    ...missed,
    find: 'since = undefined\n      return span',
    replace: 'return span',
    promise: 'A gap is told once',
  },
  {
    ...roundTrip,
    find: 'if (received !== payload) return',
    replace: '',
    promise: 'The notification of an earlier check proves nothing',
  },
  {
    ...roundTrip,
    find: 'if (answer.isReplica) return',
    replace: 'if (answer.isReplica && waited < 0) return',
    promise: 'A server that has become a replica is named as one',
  },
  {
    ...roundTrip,
    find: "const isElsewhere = sent === 'taken' &&",
    replace: "const isElsewhere = sent === 'failed' &&",
    promise: 'Sessions that lead to different servers are both made anew',
  },
  {
    ...roundTrip,
    find: "if (!activity?.isBusy) return 'lost'",
    replace: "if (!activity) return 'lost'",
    promise: 'A sending session whose process waits for its client is lost',
  },
  {
    ...roundTrip,
    find: "isBusy: state === 'active' && kind !== 'Client'",
    replace: "isBusy: state === 'idle'",
    promise: 'A NOTIFY that is blocked in the database is left alone',
  },
  {
    ...roundTrip,
    find: "if (!backend) return 'well'",
    replace: "if (!backend) return 'lost'",
    promise: 'An attempt to connect has its own limit',
  },
  {
    ...roundTrip,
    find: "activity.state === 'idle' && activity.event === 'ClientRead'",
    replace: "activity.state === 'idle'",
    promise: 'A session that delivers is deaf only if its process waits for a query',
  },
  {
    ...roundTrip,
    find: '!(wasPaused || progressAt > from)',
    replace: '!wasPaused',
    promise: 'A session that works through a flood is not taken for broken',
  },
  {
    ...roundTrip,
    find: 'performance.now() - from > deadline * 1.5 + 1000',
    replace: 'false',
    promise: 'A process that was stopped takes no session for broken',
  },
  {
    ...roundTrip,
    find: "seen.answer === 'ended' || seen.sent === 'failed' || ",
    replace: "seen.sent === 'failed' || ",
    promise: 'A LISTEN session that ended is not waited for',
  },
  {
    ...sessions,
    find: "if (next === 'listening' || next === 'draining') notifier.resume()",
    replace: "if (next === 'listening') notifier.resume()",
    promise: 'A drain sends what was held back',
  },
  {
    ...sessions,
    find: "if (next === 'away' || next === 'stopped') drop()",
    replace: "if (next === 'away') drop()",
    promise: 'The stop ends the session of LISTEN',
  },
  {
    ...sessions,
    find: "if (next === 'stopped') backoff.cut()",
    replace: '',
    promise: 'The stop ends a wait between two attempts',
  },
  {
    ...sessions,
    find: "if (listener === opened && is('listening')) lose(",
    replace: 'if (listener === opened) lose(',
    promise: 'The loss of LISTEN during a drain holds nothing back',
  },
  {
    ...sessions,
    find: '    } catch (error) {\n      drop()\n      throw error',
    replace: '    } catch (error) {\n      throw error',
    promise: 'An attempt that fails leaves no session behind',
  },
  {
    ...sessions,
    find: "if (is('stopped')) return opened.close()",
    replace: "if (is('stopped')) return",
    promise: 'A session of LISTEN that comes to stand after the stop is closed',
  },
  {
    ...sessions,
    find: "isProven = listening === 'proven'",
    replace: "isProven = listening !== 'unproven' || isProven",
    promise: 'A check that cannot be sent makes the broker unready',
  },
  {
    ...sessions,
    find: "if (sending === 'lost') notifier.reconnect()",
    replace: '',
    promise: 'A sending session that is lost is made anew',
  },
  {
    ...sessions,
    find: "if (found === 'unproven') throw",
    replace: "if (found === 'proven' && !opened) throw",
    promise: 'No session of LISTEN is taken for proven without a notification',
  },
  {
    ...sessions,
    find: 'delivery.proven(setOutAt)',
    replace: 'delivery.proven(Date.now())',
    promise: 'A gap begins where the last check that came back set out',
  },
  {
    ...sessions,
    find: "if (is('stopped')) return\n        delivery.lost()",
    replace: "if (is('stopped')) return",
    promise: 'An attempt that stood for a moment leaves no gap untold',
  },
  {
    ...followed,
    find: 'if (refusal) followed.delete(channel)',
    replace: '',
    promise: 'A channel that PostgreSQL refuses takes no place',
  },
  {
    ...followed,
    find: 'Buffer.byteLength(name) <= CHANNEL_BYTES',
    replace: 'name.length <= CHANNEL_BYTES',
    promise: 'No name that PostgreSQL would cut is listened to',
  },
  {
    ...followed,
    find: '!name.startsWith(CHECK_PREFIX)',
    replace: 'name !== CHECK_PREFIX',
    promise: "No client hears a server's checks",
  },
  {
    ...sessions,
    find: 'followed.remove(name)\n',
    replace: '',
    promise: 'A channel that was lost is not listened to again for nobody',
  },
]
