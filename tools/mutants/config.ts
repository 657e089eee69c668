/** Owns the breaks of the configuration: variables, connection strings, environment files. */
import type { Mutant } from './mutant.ts'

const test = 'test/unit/config.test.ts'
const config = { file: 'lib/config/config.ts', test }
const values = { file: 'lib/config/values.ts', test }
const conninfo = { file: 'lib/database/conninfo.ts', test: 'test/unit/conninfo.test.ts' }

export const configuration: readonly Mutant[] = [
  {
    ...config,
    find: 'make(env[name] || undefined)',
    replace: 'make(env[name])',
    promise: 'An empty variable is an unset one',
    title: 'an empty variable',
  },
  {
    ...config,
    find: 'if (!(error instanceof Fault || ',
    replace: 'if (faults.length > 0 || !(error instanceof Fault || ',
    promise: 'A wrong configuration names every wrong variable at once',
    title: 'names every wrong variable at once',
  },
  {
    ...config,
    find: 'bytes.at(-1) === 10 ? bytes.subarray(0, -1) : bytes',
    replace: 'bytes',
    promise: 'A secret in a file is its bytes, less one newline',
    title: 'less one newline',
  },
  {
    ...config,
    find: "replaceAll('.', '=')",
    replace: 'trim()',
    promise: 'A base64 secret may have dots for its padding, as of old',
    title: 'with dots for its padding',
  },
  {
    ...config,
    find: '!chain.leaf.checkPrivateKey(privateKey)',
    replace: '!chain.leaf',
    promise: "A key that is not the certificate's is a fault at the start",
    title: 'is a fault',
  },
  {
    ...config,
    find: 'and neither is PGWS_JWKS_URL',
    replace: 'but is',
    promise: 'A missing secret is named, with what may stand in for it',
    test: 'test/contract/keys.test.ts',
    title: 'or PGWS_JWT_SECRET is required',
  },
  {
    ...values,
    find: '/^(true|1)$/i',
    replace: '/^(true|1)$/',
    promise: 'Booleans are True and False in any case',
    title: 'is true',
  },
  {
    ...values,
    find: 'CHANNEL_BYTES = 63',
    replace: 'CHANNEL_BYTES = 64',
    promise: 'A listen channel that PostgreSQL would cut is refused',
    title: 'names every wrong variable at once',
  },
  {
    file: 'lib/config/variables.ts',
    find: "value ?? '*4'",
    replace: "value ?? '*'",
    promise: 'Defaults are those of the older server',
    test,
    title: 'defaults are those of the older server',
  },
  {
    file: 'lib/config/variables.ts',
    find: 'whole(1_048_576, 16_384',
    replace: 'whole(10_485_760, 16_384',
    promise: 'Defaults are those that the README and --help name',
    test,
    title: 'defaults are those that the documents name',
  },
  {
    file: 'lib/config/env-file.ts',
    find: 'a comment or empty`)',
    replace: 'a comment or empty`.concat(line))',
    promise: 'A fault of an environment file quotes none of it',
    test,
    title: 'names the line and not its text',
  },
  {
    ...conninfo,
    find: "given.get(keyword) || env[keywords[keyword] ?? '']",
    replace: "env[keywords[keyword] ?? ''] || given.get(keyword)",
    promise: 'A connection string wins over the PG variables',
    title: 'which it wins over',
  },
  {
    ...conninfo,
    find: "gssencmode: ['disable', 'prefer']",
    replace: "gssencmode: ['disable', 'prefer', 'require']",
    promise: 'A value that cannot be honoured is a fault that names it',
    title: 'a fault',
  },
  {
    ...conninfo,
    find: 'if (Object.hasOwn(keywords, keyword)) return',
    replace: 'if (keyword in keywords) return',
    promise: 'A keyword that is not supported is a fault that names it',
    title: 'a fault',
  },
  {
    ...conninfo,
    find: ".includes('@'))",
    replace: ".includes('@@'))",
    promise: 'No fault of a connection string quotes a part of the password',
    title: 'tells no part of the password',
  },
  {
    ...conninfo,
    find: "mode === 'require' && ca !== undefined ? 'verify-ca' : mode",
    replace: 'mode',
    promise: 'sslmode=require verifies where a root certificate is given, as libpq does',
    title: 'verifies with a root certificate',
  },
  {
    ...conninfo,
    find: "root === 'system' ? 'verify-full' : 'prefer'",
    replace: "'prefer'",
    promise: 'sslrootcert=system verifies in full, as libpq does',
    title: 'verifies with a root certificate',
  },
  {
    ...conninfo,
    find: "fields[index] === '*' || ",
    replace: '',
    promise: 'The password file is read as libpq reads it',
    title: 'takes it from the password file',
  },
  {
    ...conninfo,
    find: 'timeout > 0 ? timeout * 1000 : CONNECT_TIMEOUT',
    replace: 'timeout * 1000 || CONNECT_TIMEOUT / 2',
    promise: 'A host that swallows packets is given 10 s, or connect_timeout',
    title: 'sets times',
  },
]
