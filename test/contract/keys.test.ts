import { describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { connect, handshake, payloadOf } from '../support/client.ts'
import { fixture } from '../support/files.ts'
import { freePort } from '../support/postgres.ts'
import { type Environment, launch, start } from '../support/program.ts'
import { database, unique } from '../support/setup.ts'
import { keyPair, now, secret, token } from '../support/token.ts'

const pair = (kid?: string) => keyPair('ES256', { alg: 'ES256', ...(kid === undefined ? {} : { kid }) })

/** A key server of which a test says what it answers. */
function keyServer(answer: () => Response | Promise<Response>, tls?: { cert: string; key: string }) {
  let requests = 0
  const server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    ...(tls ? { tls } : {}),
    fetch: () => {
      requests++
      return answer()
    },
  })
  return {
    url: `http://127.0.0.1:${server.port}/jwks`,
    port: server.port,
    requests: () => requests,
    stop: () => server.stop(true),
  }
}

const withUrl = (url: string, more: Environment = {}): Environment => ({
  PGWS_DB_URI: database().uri,
  PGWS_JWT_SECRET: '',
  PGWS_JWKS_URL: url,
  ...more,
})

describe('PGWS_JWKS_URL', () => {
  test('a key server that refuses the connection is told without the advice of the runtime', async () => {
    const port = await freePort()
    await using program = await start(withUrl(`http://127.0.0.1:${port}/jwks`))
    const line = await program.logged(/cannot fetch the keys.*/)
    expect(line).toMatch(new RegExp(`reason="127.0.0.1:${port}: .*refused`, 'i'))
    expect(line).not.toContain('?')
  })
  test('verifies with the key set there, and takes up a new key by its kid, with a cool-down', async () => {
    const [one, two, three] = [await pair('one'), await pair('two'), await pair('three')]
    let keys: object[] = [one.jwk]
    const served = keyServer(() => Response.json({ keys }))
    await using program = await start(withUrl(served.url))
    await program.logged(/keys fetched keys=1/)
    const status = async (signed: Promise<string>) => (await handshake(program.port, `/chat/${await signed}`)).status
    expect(await status(one.sign({ mode: 'r' }))).toBe(101)
    expect(served.requests()).toBe(1)
    // The first fetch was just now: an unknown key waits for the cool-down, however often it is tried.
    keys = [two.jwk]
    for (let index = 0; index < 5; index++) expect(await status(two.sign({ mode: 'r' }))).toBe(401)
    expect(served.requests()).toBe(1)
    program.signal('SIGHUP')
    await program.logged(/keys fetched keys=1[\s\S]*keys fetched keys=1/)
    expect(await status(two.sign({ mode: 'r' }))).toBe(101)
    expect(await status(one.sign({ mode: 'r' }))).toBe(401)
    expect(await status(three.sign({ mode: 'r' }))).toBe(401)
    served.stop()
    program.signal('SIGHUP')
    await program.logged(/cannot fetch the keys .*kept=1/)
    expect(await status(two.sign({ mode: 'r' }))).toBe(101)
  })

  test('reads no answer that is far too long', async () => {
    const served = keyServer(() => new Response(' '.repeat(2 * 1024 * 1024)))
    await using program = await start(withUrl(served.url))
    expect(await program.logged(/cannot fetch the keys .*/)).toContain('longer than 1048576 bytes')
    served.stop()
  })

  test('with a key server that is down answers 503, and recovers by itself', async () => {
    const one = await pair('one')
    let isDown = true
    const served = keyServer(() => (isDown ? new Response('no', { status: 500 }) : Response.json({ keys: [one.jwk] })))
    await using program = await start(withUrl(served.url))
    await program.logged(/cannot fetch the keys/)
    const answer = await handshake(program.port, `/chat/${await one.sign({ mode: 'r' })}`)
    expect(answer).toMatchObject({ status: 503, body: 'The keys that verify tokens are not available' })
    expect(answer.headers.get('Retry-After')).toBe('1')
    isDown = false
    await program.logged(/keys fetched/)
    expect((await handshake(program.port, `/chat/${await one.sign({ mode: 'r' })}`)).status).toBe(101)
    served.stop()
  })

  test('with a slow key server lets upgrades wait for the first set', async () => {
    const one = await pair()
    const served = keyServer(async () => {
      await new Promise((resolve) => setTimeout(resolve, 700))
      return Response.json({ keys: [one.jwk] })
    })
    await using program = await start(withUrl(served.url))
    await using client = await connect(`${program.origin}/chat/${await one.sign({ mode: 'rw' })}`)
    client.send('x')
    expect(payloadOf(await client.next())).toBe('x')
    served.stop()
  })

  test('beside a secret counts the keys of both, and no symmetric key of the set', async () => {
    const one = await pair()
    const stolen = 'a symmetric key that anybody can fetch'
    const served = keyServer(() =>
      Response.json({ keys: [one.jwk, { kty: 'oct', k: Buffer.from(stolen).toString('base64url') }] }),
    )
    await using program = await start(withUrl(served.url, { PGWS_JWT_SECRET: secret }))
    expect(await program.logged(/keys fetched keys=\d+/)).toEndWith('keys=1')
    const status = async (signed: Promise<string>) => (await handshake(program.port, `/chat/${await signed}`)).status
    expect(await status(one.sign({ mode: 'r' }))).toBe(101)
    expect(await status(token({ mode: 'r' }))).toBe(101)
    expect(await status(token({ mode: 'r' }, new TextEncoder().encode(stolen)))).toBe(401)
    served.stop()
  })

  test('may be https', async () => {
    const one = await pair()
    const served = keyServer(() => Response.json({ keys: [one.jwk] }), {
      cert: readFileSync(fixture('server.crt'), 'utf8'),
      key: readFileSync(fixture('server.key'), 'utf8'),
    })
    const url = `https://localhost:${served.port}/jwks`
    await using program = await start(withUrl(url, { NODE_EXTRA_CA_CERTS: fixture('authority.crt') }))
    await program.logged(/keys fetched keys=1/)
    expect((await handshake(program.port, `/chat/${await one.sign({ mode: 'r' })}`)).status).toBe(101)
    await using stranger = await start(withUrl(url))
    await stranger.logged(/cannot fetch the keys/)
    served.stop()
  })

  test('or PGWS_JWT_SECRET is required', async () => {
    const program = launch(withUrl(''))
    expect(await program.exited).toBe(1)
    expect(program.stderr()).toContain('PGWS_JWT_SECRET is not set, and neither is PGWS_JWKS_URL')
    const wrong = launch(withUrl('ftp://x'))
    expect(await wrong.exited).toBe(1)
    expect(wrong.stderr()).toContain('PGWS_JWKS_URL is not an http or https URL')
  })
})

describe('claims', () => {
  test('aud and iss must be those that are configured', async () => {
    await using program = await start({ PGWS_DB_URI: database().uri, PGWS_JWT_AUDIENCE: 'us', PGWS_JWT_ISSUER: 'https://issuer' })
    const answer = async (claims: Record<string, unknown>) =>
      handshake(program.port, `/chat/${await token({ mode: 'r', exp: now() + 60, ...claims })}`)
    expect((await answer({ aud: 'us', iss: 'https://issuer' })).status).toBe(101)
    expect((await answer({ aud: ['them', 'us'], iss: 'https://issuer' })).status).toBe(101)
    for (const aud of ['them', ['them'], undefined, ['usa']]) {
      expect(await answer({ ...(aud ? { aud } : {}), iss: 'https://issuer' })).toMatchObject({
        status: 401,
        body: 'Token for another audience',
      })
    }
    for (const iss of ['https://issuer/', undefined]) {
      expect(await answer({ aud: 'us', ...(iss ? { iss } : {}) })).toMatchObject({ status: 401, body: 'Token of another issuer' })
    }
  })
  test('of mode and channels may have other names', async () => {
    await using program = await start({
      PGWS_DB_URI: database().uri,
      PGWS_JWT_MODE_CLAIM: 'https://example.org/mode',
      PGWS_JWT_CHANNELS_CLAIM: 'https://example.org/channels',
    })
    const named = await token({
      'https://example.org/mode': 'rw',
      'https://example.org/channels': ['named'],
      mode: 'x',
      channels: [],
    })
    await using client = await connect(`${program.origin}/${named}`)
    client.send('x')
    expect(JSON.parse(await client.next()).channel).toBe('named')
    expect(await handshake(program.port, `/named/${await token({ mode: 'rw', channels: ['named'] })}`)).toMatchObject({
      status: 403,
      body: 'Missing mode',
    })
  })
  test('are forwarded only where PGWS_FORWARD_CLAIMS names them', async () => {
    await using program = await start({ PGWS_DB_URI: database().uri, PGWS_FORWARD_CLAIMS: 'sub, name,message_delivered_at' })
    const channel = unique('forward')
    await using client = await connect(
      `${program.origin}/${await token({ mode: 'rw', channels: [channel], sub: 'ada', email: 'private' })}`,
    )
    client.send('x')
    expect(JSON.parse(await client.next()).claims).toEqual({ sub: 'ada', message_delivered_at: expect.any(Number) })
  })
})
