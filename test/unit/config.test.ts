import { describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parse } from '../../lib/config/config.ts'
import { parseEnvFile } from '../../lib/config/env-file.ts'
import { variables } from '../../lib/config/variables.ts'
import { Fault } from '../../lib/fault.ts'
import { documents } from '../../tools/docs.ts'
import { fixture } from '../support/files.ts'
import { secret } from '../support/token.ts'

const good = { PGWS_DB_URI: 'postgres://u:p@h/d', PGWS_JWT_SECRET: secret }
const read = (env: Record<string, string>) => parse({ ...good, ...env }, readFileSync, 'me')

function config(env: Record<string, string> = {}) {
  const result = read(env)
  if ('faults' in result) throw new Error(result.faults.join('\n'))
  return result
}

function faults(env: Record<string, string>): readonly string[] {
  const result = read(env)
  return 'faults' in result ? result.faults : []
}

test('defaults are those of the older server', () => {
  expect(config()).toMatchObject({
    rootPath: undefined,
    host: '*4',
    port: 3000,
    listenChannel: 'postgres-websockets-listener',
    metaChannel: undefined,
    poolSize: 10,
    retries: 5,
    checkInterval: 0,
    tls: undefined,
    shutdownTimeout: 5000,
  })
})

test('defaults are those that the documents name', () => {
  const numbers = Object.values(variables).filter((variable) => /^\d+$/.test(variable.default))
  expect(numbers.map(({ name }) => name)).toContain('PGWS_SEND_BUFFER_BYTES')
  for (const variable of numbers) {
    expect([variable.name, variable.parse(undefined)]).toEqual([variable.name, Number(variable.default)])
  }
})

test.each(['*5', '!', '**', 'a b', 'http://h', 'localhost:3000', '[::1]'])(
  '%s is no host, and the fault names the forms',
  (host) => {
    for (const name of ['PGWS_HOST', 'PGWS_ADMIN_HOST'])
      expect(faults({ [name]: host })).toEqual([
        expect.stringContaining(`${name} is "${host}", neither a name, nor an address, nor one of *, *4, !4, *6, !6`),
      ])
  },
)

test.each(['*', '!6', 'localhost', 'db-1.example.org', 'bücher.example', '10.0.0.1', '::', 'fe80::1%eth0'])(
  '%s is a host',
  (host) => {
    expect(config({ PGWS_HOST: host }).host).toBe(host)
  },
)

test('two ports on one address differ', () => {
  expect(faults({ PGWS_PORT: '3000', PGWS_ADMIN_PORT: '3000' })).toEqual([
    expect.stringContaining('PGWS_ADMIN_PORT is 3000, as PGWS_PORT is'),
  ])
  expect(faults({ PGWS_HOST: '::1', PGWS_ADMIN_PORT: '3000', PGWS_ADMIN_HOST: '127.0.0.1' })).toBeEmpty()
  expect(faults({ PGWS_PORT: '0', PGWS_ADMIN_PORT: '0' })).toBeEmpty()
})

test('the secret of the sample is warned of, wherever it is read from', () => {
  const published = variables.jwtSecret.sample ?? ''
  const warning = [expect.stringMatching(/^PGWS_JWT_SECRET is the secret that the sample publishes/)]
  expect(config({ PGWS_JWT_SECRET: published }).warnings).toEqual(warning)
  expect(parse({ ...good, PGWS_JWT_SECRET: '@f' }, () => Buffer.from(`${published}\n`), 'me').warnings).toEqual(warning)
  expect(config().warnings).toBeEmpty()
})

test('an empty variable is an unset one', () => {
  expect(config({ PGWS_PORT: '', PGWS_META_CHANNEL: '', PGWS_ROOT_PATH: '' })).toMatchObject({
    port: 3000,
    metaChannel: undefined,
    rootPath: undefined,
  })
})

test.each([['True'], ['true'], ['TRUE'], ['1']])('%s is true', (value) => {
  const encoded = Buffer.from(secret).toString('base64')
  expect(config({ PGWS_JWT_SECRET_BASE64: value, PGWS_JWT_SECRET: encoded }).keys[0]?.object.export().toString()).toBe(secret)
})

test.each([['False'], ['false'], ['0']])('%s is false', (value) => {
  expect(config({ PGWS_JWT_SECRET_BASE64: value }).keys[0]?.object.export().toString()).toBe(secret)
})

test('a base64 secret may be written for URLs, and with dots for its padding', () => {
  const bytes = Buffer.from(Array.from({ length: 40 }, (_, index) => 255 - index * 3))
  for (const text of [bytes.toString('base64'), bytes.toString('base64url'), `${bytes.toString('base64url')}..`]) {
    const [key] = config({ PGWS_JWT_SECRET_BASE64: '1', PGWS_JWT_SECRET: text }).keys
    expect(Buffer.from(key?.object.export() ?? [])).toEqual(bytes)
  }
})

test('a secret in a file is its bytes, less one newline', () => {
  const read = (bytes: Uint8Array) => parse({ ...good, PGWS_JWT_SECRET: '@/secret' }, () => bytes, 'me')
  const value = (bytes: Uint8Array) => {
    const result = read(bytes)
    return 'faults' in result ? undefined : Buffer.from(result.keys[0]?.object.export() ?? [])
  }
  const bytes = Buffer.from(Array.from({ length: 32 }, (_, index) => 200 + index))
  expect(value(Buffer.concat([bytes, Buffer.from('\n')]))).toEqual(bytes)
  expect(value(Buffer.concat([bytes, Buffer.from('\n\n')]))).toEqual(Buffer.concat([bytes, Buffer.from('\n')]))
})

test('a connection string in a file loses the white space around it', () => {
  const result = parse({ ...good, PGWS_DB_URI: '@/uri' }, () => Buffer.from(' \npostgres://u@h7/d \n\n'), 'me')
  expect('faults' in result ? result : result.database.hosts[0]?.name).toBe('h7')
})

describe('a wrong configuration', () => {
  test('names every wrong variable at once, with its fault and an example', () => {
    const wrong = {
      PGWS_DB_URI: 'postgres://u:password-in-uri@h:x/d',
      PGWS_JWT_SECRET: 'short-secret',
      PGWS_JWT_SECRET_BASE64: 'maybe',
      PGWS_PORT: '70000',
      PGWS_LISTEN_CHANNEL: 'ä'.repeat(32),
      PGWS_POOL_SIZE: '0',
      PGWS_RETRIES: '-1',
      PGWS_CHECK_LISTENER_INTERVAL: '1.5',
      PGWS_CERTIFICATE_FILE: '/nonexistent/cert',
      PGWS_SHUTDOWN_TIMEOUT: 'soon',
    }
    const found = faults(wrong)
    for (const name of Object.keys(wrong)) {
      expect(found.filter((fault) => fault.startsWith(`${name} `) && fault.includes(`For example: ${name}="`))).toHaveLength(1)
    }
    expect(found.join()).not.toContain('password-in-uri')
    expect(found.join()).not.toContain('short-secret')
    expect(found).toContainEqual(expect.stringContaining('is 64 bytes long'))
  })
  test('names what is required', () => {
    const result = parse({}, readFileSync, 'me')
    expect('faults' in result && result.faults.map((fault) => fault.split(' ')[0])).toEqual(['PGWS_DB_URI', 'PGWS_JWT_SECRET'])
  })
  test.each([
    [{ PGWS_JWT_SECRET: '@/nonexistent' }, 'PGWS_JWT_SECRET names the file "/nonexistent", which cannot be read'],
    [{ PGWS_DB_URI: '@/nonexistent' }, 'PGWS_DB_URI names the file'],
    [{ PGWS_JWT_SECRET_BASE64: 'True', PGWS_JWT_SECRET: 'not base64 at all, but long enough' }, 'PGWS_JWT_SECRET is not base64'],
    [{ PGWS_TRUSTED_PROXIES: '127.0.0.1, 10.0.0.0/33' }, 'PGWS_TRUSTED_PROXIES holds "10.0.0.0/33", neither an IP address nor'],
    [{ PGWS_LOG_CLAIM: 'client' }, 'PGWS_LOG_CLAIM is "client", which is a field of the log already'],
    [{ PGWS_JWT_SECRET: '{"kty":"RSA"}' }, 'PGWS_JWT_SECRET key is damaged'],
    [{ PGWS_CERTIFICATE_FILE: fixture('server.crt') }, 'PGWS_KEY_FILE is not set, but PGWS_CERTIFICATE_FILE is'],
    [{ PGWS_KEY_FILE: fixture('server.key') }, 'PGWS_CERTIFICATE_FILE is not set, but PGWS_KEY_FILE is'],
    [
      { PGWS_CERTIFICATE_FILE: fixture('server.key'), PGWS_KEY_FILE: fixture('server.key') },
      'PGWS_CERTIFICATE_FILE has no PEM certificate',
    ],
    [
      { PGWS_CERTIFICATE_FILE: fixture('server.crt'), PGWS_KEY_FILE: fixture('server.crt') },
      'PGWS_KEY_FILE has no PEM private key',
    ],
    [
      { PGWS_CERTIFICATE_FILE: fixture('server.crt'), PGWS_KEY_FILE: fixture('client.key') },
      'PGWS_KEY_FILE is not the key of the certificate',
    ],
  ] as [Record<string, string>, string][])('%j is a fault', (env, expected) => {
    expect(faults(env).join('\n')).toContain(expected)
  })
})

test('the documents follow from the table', () => {
  for (const [name, text] of Object.entries(documents)) {
    expect({ name, text: readFileSync(resolve(import.meta.dir, '../..', name), 'utf8') }).toEqual({ name, text: text() })
  }
})

test('sample-env is a configuration', () => {
  const sample = parseEnvFile(readFileSync(resolve(import.meta.dir, '../../sample-env'), 'utf8'))
  expect(parse(sample, readFileSync, 'me')).not.toHaveProperty('faults')
  for (const { name } of Object.values(variables))
    expect(readFileSync(resolve(import.meta.dir, '../../sample-env'), 'utf8')).toContain(name)
})

describe('an environment file', () => {
  test('is read in both forms', () => {
    const text = `# comment\n; comment\n\nexport A="with \\"quotes\\" and \\$x"\nB=plain value \nC='{"kty":"oct"}' # why\n  export D=\nE=a=b#c\r\nF="{\\"a\\":\\"\\\\n\\"}"\nG={"kty":"oct"}`
    expect(parseEnvFile(text)).toEqual({
      A: 'with "quotes" and $x',
      B: 'plain value',
      C: '{"kty":"oct"}',
      D: '',
      E: 'a=b#c',
      F: '{"a":"\\n"}',
      G: '{"kty":"oct"}',
    })
  })
  test.each([['just text'], ['A="open'], ["A='open"], ['1A=x']])(
    'with %p is a fault that names the line and not its text',
    (line) => {
      expect(() => parseEnvFile(`B=1\n${line}`)).toThrow(Fault)
      expect(() => parseEnvFile(`B=1\n${line}`)).toThrow('line 2')
      expect(() => parseEnvFile(`B=1\n${line}`)).not.toThrow(/open|just text|1A/)
    },
  )
})

test.each([
  ['api.handle', '"api"."handle"'],
  ['Api.Handle_Größe$1', '"api"."handle_größe$1"'],
  ['"My Schema"."say ""hi"""', '"My Schema"."say ""hi"""'],
  ['api."a.b"', '"api"."a.b"'],
])('%s is the name of a function, as PostgreSQL reads it', (name, quoted) => {
  expect(config({ PGWS_MESSAGE_FUNCTION: name }).messageFunction).toBe(quoted)
})

test.each(['handle', 'api.', '.handle', 'a.b.c', 'api.handle()', 'api.1a', 'api."x', 'api.""', 'api.a b', 'api.a; drop table x'])(
  '%s names no function with its schema',
  (name) => {
    expect(faults({ PGWS_MESSAGE_FUNCTION: name })).toEqual([
      `PGWS_MESSAGE_FUNCTION is ${JSON.stringify(name)}, not a function's name with its schema. For example: PGWS_MESSAGE_FUNCTION="api.handle_message"`,
    ])
  },
)

test('a name that PostgreSQL would cut is a fault', () => {
  expect(faults({ PGWS_MESSAGE_FUNCTION: `api.${'é'.repeat(32)}` })).toEqual([
    expect.stringContaining(`holds "${'é'.repeat(32)}", but PostgreSQL takes names of at most 63 bytes`),
  ])
})
