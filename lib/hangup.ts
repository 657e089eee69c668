/** Owns that SIGHUP ends no start: without a handler it ends the process. What it is for then is up to whoever handles it, too. */
import process from 'node:process'

process.on('SIGHUP', () => undefined)
