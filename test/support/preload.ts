/** Owns what is there for every test run, also one of unit tests alone: it starts nothing, and ends what was started. */
import { afterAll } from 'bun:test'
import { endAll } from './ending.ts'

afterAll(endAll)
