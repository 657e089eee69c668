/**
 * Owns the configuration: the environment becomes values that the program trusts. Pure: the environment and a reader of files are
 * parameters. Every fault is reported at once, and none quotes a secret.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { type Key, readKeys } from '../access/token.ts'
import { type Conninfo, parseConninfo, type ReadFile } from '../database/conninfo.ts'
import { Fault } from '../fault.ts'
import { unknownVariables } from './unknown.ts'
import { type Variable, variables } from './variables.ts'

export type Environment = Readonly<Record<string, string | undefined>>

type Values = { readonly [K in keyof typeof variables]: ReturnType<(typeof variables)[K]['parse']> }

/** A configuration without fault. */
export interface Config extends Omit<Values, 'databaseUri' | 'jwtSecret' | 'jwtSecretIsBase64' | 'certificateFile' | 'keyFile'> {
  readonly database: Conninfo
  readonly keys: readonly Key[]
  readonly tls: { readonly cert: string; readonly key: string } | undefined
  readonly warnings: Warnings
}

/** One line for each wrong variable: its name, the value's fault and an example. */
export type Faults = readonly string[]

/** What works but was probably not intended: a line for each variable, which begins with its name. */
export type Warnings = readonly string[]

/**
 * Reads the configuration from the environment.
 *
 * @param osUser the operating system's user, which is the default for PostgreSQL's.
 */
export function parse(
  env: Environment,
  readFile: ReadFile,
  osUser: string,
): Config | { readonly faults: Faults; readonly warnings: Warnings } {
  const faults: string[] = []
  const names = Object.values(variables).map(({ name }) => name)
  const warnings = unknownVariables(env, names).map(
    ({ name, nearest }) => `${name} is no variable of this program${nearest === undefined ? '' : `: ${nearest}?`}`,
  )
  const attempt = collecting(env, faults)
  const values = Object.fromEntries(Object.entries(variables).map(([key, entry]) => [key, attempt<unknown>(entry, entry.parse)]))

  const database = readDatabase(env, readFile, osUser, attempt)
  const keys = attempt(variables.jwtSecret, (secret) => {
    if (secret === undefined && env[variables.jwksUrl.name]) return []
    if (secret === undefined) throw new Fault('is not set, and neither is PGWS_JWKS_URL')
    const bytes = secret.startsWith('@') ? lessNewline(readAt(secret, readFile)) : new TextEncoder().encode(secret)
    if (new TextDecoder().decode(bytes) === variables.jwtSecret.sample) warnings.push(SAMPLE_SECRET)
    return readKeys(values.jwtSecretIsBase64 ? decodeBase64(bytes) : bytes)
  })
  const tls = readCertificate(env, readFile, attempt)
  attempt(variables.adminPort, () => {
    const { host, port, adminPort, adminHost = host } = values
    if (adminPort && adminPort === port && adminHost === host) throw new Fault(`is ${port}, as PGWS_PORT is: each needs its own`)
  })
  if (faults.length > 0) return { faults, warnings }
  // Without a fault each parse function has returned, so every value has its type.
  return { ...(values as unknown as Values), database, keys, tls, warnings } as Config
}

const SAMPLE_SECRET = `${variables.jwtSecret.name} is the secret that the sample publishes: everyone can sign tokens with it`

/** Reads only how to reach the database, for what needs no other variable. */
export function parseDatabase(env: Environment, readFile: ReadFile, osUser: string): Conninfo | { readonly faults: Faults } {
  const faults: string[] = []
  const attempt = collecting(env, faults)
  attempt(variables.databaseUri, variables.databaseUri.parse)
  return readDatabase(env, readFile, osUser, attempt) ?? { faults }
}

type Attempt = <T>(entry: Variable<unknown>, make: (given: string | undefined) => T) => T | undefined

/** Reads a variable's value with `make`, and adds its fault to the list. */
function collecting(env: Environment, faults: string[]): Attempt {
  return ({ name, example }, make) => {
    try {
      return make(env[name] || undefined)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      faults.push(`${name} ${error.message}. For example: ${name}="${example}"`)
      return undefined
    }
  }
}

function readDatabase(env: Environment, readFile: ReadFile, osUser: string, attempt: Attempt): Conninfo | undefined {
  return attempt(variables.databaseUri, (uri) => {
    if (uri === undefined) return undefined
    const text = uri.startsWith('@') ? new TextDecoder().decode(readAt(uri, readFile)).trim() : uri
    return parseConninfo(text, env, readFile, osUser)
  })
}

function readCertificate(env: Environment, readFile: ReadFile, attempt: Attempt): Config['tls'] {
  const pem = (path: string | undefined, other: Variable<unknown>): string | undefined => {
    if (path === undefined && env[other.name]) throw new Fault(`is not set, but ${other.name} is: they go together`)
    return path === undefined ? undefined : new TextDecoder().decode(readAt(`@${path}`, readFile))
  }
  const chain = attempt(variables.certificateFile, (path) => {
    const cert = pem(path, variables.keyFile)
    if (cert === undefined) return undefined
    const leaf = faulty('has no PEM certificate', () => new X509Certificate(cert))
    // A port cannot be bound with a chain of which only a part is written yet.
    faulty('has a PEM certificate that is not whole', () => certificatesOf(cert).map((one) => new X509Certificate(one)))
    return { cert, leaf }
  })
  return attempt(variables.keyFile, (path) => {
    const key = pem(path, variables.certificateFile)
    if (key === undefined) return undefined
    const privateKey = faulty('has no PEM private key that is readable without a passphrase', () => createPrivateKey(key))
    if (chain && !chain.leaf.checkPrivateKey(privateKey)) throw new Fault('is not the key of the certificate')
    return chain && { cert: chain.cert, key }
  })
}

/** The PEM texts of a chain, each from its first line on. */
const certificatesOf = (chain: string): string[] =>
  chain.split(/(?=-----BEGIN )/).filter((block) => /^-----BEGIN ([A-Z0-9]+ )?CERTIFICATE-----/.test(block))

function faulty<T>(phrase: string, make: () => T): T {
  try {
    return make()
  } catch {
    throw new Fault(phrase)
  }
}

function readAt(reference: string, readFile: ReadFile): Uint8Array {
  const path = reference.slice(1)
  return faulty(`names the file ${JSON.stringify(path)}, which cannot be read`, () => readFile(path))
}

const lessNewline = (bytes: Uint8Array): Uint8Array => (bytes.at(-1) === 10 ? bytes.subarray(0, -1) : bytes)

function decodeBase64(bytes: Uint8Array): Uint8Array {
  const encoded = new TextDecoder().decode(bytes).trim().replaceAll('.', '=').replaceAll('-', '+').replaceAll('_', '/')
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(encoded)) throw new Fault('is not base64, but PGWS_JWT_SECRET_BASE64 is True')
  return Buffer.from(encoded, 'base64')
}
