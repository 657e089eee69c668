/** Owns finding what was said of claims, for a token that contains them: nearly as fast for ten thousand as for one. Pure. */

import { contains, isScalar, type Json, readJson } from './containment.ts'

export interface Selection<T> {
  readonly size: number
  /** @param claims a JSON object. It replaces what was said of the same claims. */
  set(claims: string, value: T): void
  /** What was said of just these. */
  get(claims: string): T | undefined
  /** The first that is said of claims which the token contains, and that is accepted. @param token a JSON object. */
  find(token: string, accepts?: (value: T) => boolean): T | undefined
  /** Forgets what is not accepted. */
  keep(accepts: (value: T) => boolean): void
}

interface Entry<T> {
  readonly json: Json
  readonly place: string
  value: T
}

/** The place of claims without a single plain value. */
const ANYWHERE = ''

export function createSelection<T>(): Selection<T> {
  const entries = new Map<string, Entry<T>>()
  /** By one of their claims: a token is compared only with those that have one of its own. */
  const places = new Map<string, Set<Entry<T>>>()

  return {
    get size() {
      return entries.size
    },
    set(claims, value) {
      const known = entries.get(claims)
      if (known) {
        known.value = value
        return
      }
      const json = readJson(claims)
      const entry = { json, place: placesOf(json)[0] ?? ANYWHERE, value }
      entries.set(claims, entry)
      const beside = places.get(entry.place)
      if (beside) beside.add(entry)
      else places.set(entry.place, new Set([entry]))
    },
    get: (claims) => entries.get(claims)?.value,
    find(token, accepts = () => true) {
      if (entries.size === 0) return undefined
      const json = readJson(token)
      for (const place of [ANYWHERE, ...placesOf(json)])
        for (const entry of places.get(place) ?? []) if (contains(json, entry.json) && accepts(entry.value)) return entry.value
      return undefined
    },
    keep(accepts) {
      for (const [claims, entry] of entries) {
        if (accepts(entry.value)) continue
        entries.delete(claims)
        const beside = places.get(entry.place)
        if (beside?.delete(entry) && beside.size === 0) places.delete(entry.place)
      }
    },
  }
}

const placesOf = (json: Json): readonly string[] =>
  Object.entries(json ?? {})
    .filter(([, value]) => isScalar(value))
    .map(([name, value]) => JSON.stringify([name, value]))
