/** Owns what the process tells of itself in metrics. */

import type { Metrics } from './metrics.ts'

/** What it uses: bytes of memory, seconds of CPU time, its start in seconds of UNIX time, dropped log lines. */
export type Usage = () => Readonly<Record<'residentBytes' | 'cpuSeconds' | 'startedAt' | 'droppedLogLines', number>>

export function describeProcess({ gauge }: Metrics, version: string, usage: Usage): void {
  gauge('pgws_build_info', 'The version, as a label.', () => ({ [version]: 1 }), 'version')
  gauge('process_resident_memory_bytes', 'Resident memory size in bytes.', () => usage().residentBytes)
  gauge('process_cpu_seconds_total', 'User and system CPU time in seconds.', () => usage().cpuSeconds, undefined, 'counter')
  gauge('process_start_time_seconds', 'Start of the process in seconds of UNIX time.', () => usage().startedAt)
  gauge(
    'pgws_log_lines_dropped_total',
    'Log lines dropped because nobody read them.',
    () => usage().droppedLogLines,
    undefined,
    'counter',
  )
}
