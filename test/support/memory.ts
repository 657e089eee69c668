/** Owns looking at the memory of a process. */
import { readFileSync } from 'node:fs'

/** Bytes of it that are in memory. */
export const residentBytes = (pid: number | undefined): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
