/** Owns how a variable's text becomes a value. Undefined is an unset variable, and a text that cannot be read throws a Fault. Pure. */

import { Fault } from '../fault.ts'
import { type Network, readNetwork } from './networks.ts'

export const text = (value: string | undefined): string | undefined => value

export function required(value: string | undefined): string {
  if (value === undefined) throw new Fault('is not set')
  return value
}

export const whole =
  <T>(otherwise: T, least: number, most: number) =>
  (value: string | undefined): number | T => {
    if (value === undefined) return otherwise
    const number = Number(value)
    if (!/^\s*\d+\s*$/.test(value) || number < least || number > most)
      throw new Fault(`is ${JSON.stringify(value)}, not a whole number from ${least} to ${most}`)
    return number
  }

export function boolean(value: string | undefined): boolean {
  if (value === undefined || /^(false|0)$/i.test(value)) return false
  if (/^(true|1)$/i.test(value)) return true
  throw new Fault(`is ${JSON.stringify(value)}, neither True nor False`)
}

/** PostgreSQL cuts a longer identifier silently (manual, "Identifiers and Key Words"). */
const NAME_BYTES = 63

export const CHANNEL_BYTES = NAME_BYTES

export const channel =
  <T>(otherwise: T) =>
  (value: string | undefined): string | T => {
    if (value === undefined) return otherwise
    const bytes = Buffer.byteLength(value)
    if (bytes > CHANNEL_BYTES)
      throw new Fault(`is ${bytes} bytes long, but PostgreSQL takes channel names of at most ${CHANNEL_BYTES}`)
    return value
  }

/** A name as SQL has it: bare, which PostgreSQL folds to lower case, or in double quotes. */
const IDENTIFIER = String.raw`([\p{L}_][\p{L}\p{N}_$]*|"(?:[^"]|"")+")`

const QUALIFIED = new RegExp(`^${IDENTIFIER}\\.${IDENTIFIER}$`, 'u')

/** A function with its schema, as PostgreSQL reads the name. @returns both in double quotes, as they may stand in a statement. */
export function functionName(value: string | undefined): string | undefined {
  if (value === undefined) return undefined
  const [, ...parts] = QUALIFIED.exec(value) ?? []
  if (parts.length === 0) throw new Fault(`is ${JSON.stringify(value)}, not a function's name with its schema`)
  const names = parts.map((part) =>
    part.startsWith('"') ? part : `"${part.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase())}"`,
  )
  const long = names.find((name) => Buffer.byteLength(name.slice(1, -1).replaceAll('""', '"')) > NAME_BYTES)
  if (long !== undefined) throw new Fault(`holds ${long}, but PostgreSQL takes names of at most ${NAME_BYTES} bytes`)
  return names.join('.')
}

/** The longest delay of a timer, in milliseconds. */
export const LONGEST = 2_147_483_647

/** The forms of a host that do not name a single address. */
const HOST_FORMS = ['*', '*4', '!4', '*6', '!6'] as const

/** Letters of any alphabet, because resolvers may know such names. */
const NAME = /^[\p{L}\p{N}._-]+$/u

/** It may end in a zone, which names an interface. */
const IPV6 = /^(?=.*:.*:)[\da-f:.]+(%[\w.-]+)?$/i

export const host =
  <T>(otherwise: T) =>
  (value: string | undefined): string | T => {
    if (value === undefined) return otherwise
    if (HOST_FORMS.some((form) => form === value) || NAME.test(value) || IPV6.test(value)) return value
    throw new Fault(`is ${JSON.stringify(value)}, neither a name, nor an address, nor one of ${HOST_FORMS.join(', ')}`)
  }

/** Whether only this machine can reach a server at this address. */
export const isLoopback = (value: string): boolean => /^(localhost|127\.[\d.]+|::1)$/i.test(value)

/** The items of a comma-separated list, without the white space around them. */
export function list(value: string | undefined): readonly string[] | undefined {
  return value
    ?.split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
}

export function networks(value: string | undefined): readonly Network[] {
  return (list(value) ?? []).map((item) => {
    const network = readNetwork(item)
    if (network === undefined) throw new Fault(`holds ${JSON.stringify(item)}, neither an IP address nor a network`)
    return network
  })
}

export function url(value: string | undefined): URL | undefined {
  if (value === undefined) return undefined
  if (!URL.canParse(value) || !/^https?:$/.test(new URL(value).protocol)) throw new Fault('is not an http or https URL')
  return new URL(value)
}

/** The first of the names is the default. */
export const oneOf =
  <T extends string>(names: readonly [T, ...T[]]) =>
  (value: string | undefined): T => {
    const found = value === undefined ? names[0] : names.find((name) => name === value)
    if (found === undefined) throw new Fault(`is ${JSON.stringify(value)}, none of ${names.join(', ')}`)
    return found
  }
