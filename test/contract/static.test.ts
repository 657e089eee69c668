import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { request } from '../support/client.ts'
import { type Program, start } from '../support/program.ts'
import { database } from '../support/setup.ts'

let program: Program
const folder = mkdtempSync(join(tmpdir(), 'pgws-static-'))
const root = join(folder, 'root')
const body = `${'a'.repeat(99_999)}z`

beforeAll(async () => {
  mkdirSync(join(root, 'sub/empty'), { recursive: true })
  for (const name of ['root/.git', 'root/sub/.hidden', 'root/..2026_01_01', 'root-beside']) mkdirSync(join(folder, name))
  for (const [name, text] of Object.entries({
    'root/index.html': '<h1>home</h1>',
    'root/sub/index.html': '<h1>sub</h1>',
    'root/app.js': 'export {}',
    'root/style.css': 'a {}',
    'root/a b ü.txt': 'spaced',
    'root/big.bin': body,
    'root/empty.txt': '',
    'root/.env': 'secret',
    'root/.git/config': 'secret',
    'root/sub/.hidden/index.html': 'secret',
    'root/..2026_01_01/mounted.txt': 'mounted',
    'secret.txt': 'outside',
    'root-beside/x.txt': 'beside',
  })) {
    writeFileSync(join(folder, name), text)
  }
  symlinkSync('../secret.txt', join(root, 'link.txt'))
  symlinkSync('..', join(root, 'up'))
  symlinkSync('../root-beside', join(root, 'beside'))
  symlinkSync('app.js', join(root, 'inside.js'))
  symlinkSync('/dev/zero', join(root, 'zero'))
  symlinkSync('.git', join(root, 'git'))
  symlinkSync('sub/.hidden/index.html', join(root, 'hidden.html'))
  symlinkSync('sub/.hidden', join(root, 'hidden'))
  // A volume of Kubernetes.
  symlinkSync('..2026_01_01', join(root, '..data'))
  symlinkSync('..data/mounted.txt', join(root, 'mounted.txt'))
  spawnSync('mkfifo', [join(root, 'pipe')])
  program = await start({ PGWS_DB_URI: database().uri, PGWS_ROOT_PATH: root })
})
afterAll(async () => {
  await program.stop()
  rmSync(folder, { recursive: true })
})

const get = (path: string, headers: Record<string, string> = {}, method = 'GET') =>
  request(program.port, method, path, { Host: 'localhost', Connection: 'close', ...headers })

describe('a file', () => {
  test.each([
    ['/', '<h1>home</h1>', 'text/html'],
    ['/index.html', '<h1>home</h1>', 'text/html'],
    ['/sub/', '<h1>sub</h1>', 'text/html'],
    ['/app.js', 'export {}', 'text/javascript'],
    ['/app.js?v=1', 'export {}', 'text/javascript'],
    ['/inside.js', 'export {}', 'text/javascript'],
    ['/style.css', 'a {}', 'text/css'],
    ['/a%20b%20%C3%BC.txt', 'spaced', 'text/plain'],
    ['/big.bin', body, 'application/octet-stream'],
    ['/empty.txt', '', 'text/plain'],
    ['/mounted.txt', 'mounted', 'text/plain'],
  ])('%s is served with its type and length', async (path, text, type) => {
    const answer = await get(path)
    expect({ ...answer, headers: undefined }).toEqual({ status: 200, body: text, headers: undefined })
    expect(answer.headers.get('Content-Type')).toStartWith(type)
    expect(answer.headers.get('Content-Length')).toBe(String(text.length))
    expect(answer.headers.get('X-Content-Type-Options')).toBe('nosniff')
    expect(answer.headers.get('Server')).toMatch(/^postgres-websockets\//)
  })
  test('answers HEAD with the same headers and no body', async () => {
    const answer = await get('/big.bin', {}, 'HEAD')
    expect(answer).toMatchObject({ status: 200, body: '' })
    expect(answer.headers.get('Content-Length')).toBe('100000')
  })
  test('answers no other method', async () => {
    for (const method of ['PUT', 'DELETE']) {
      const answer = await get('/app.js', { 'Content-Length': '0' }, method)
      expect(answer.status).toBe(405)
      expect(answer.headers.get('Allow')).toBe('GET, HEAD, POST')
    }
  })
  test('is served to a client that offers another protocol, as curl --http2 does', async () => {
    const headers = { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABkAAQAoAAAAAIAAAAA' }
    expect(await get('/big.bin', headers)).toMatchObject({ status: 200, body })
    expect(await get('/none.txt', headers)).toMatchObject({ status: 404, body: 'Not found' })
  })
  test('of a folder without its slash is found with it', async () => {
    const answer = await get('/sub')
    expect(answer.status).toBe(301)
    expect(answer.headers.get('Location')).toBe('/sub/')
  })
  test.each([
    ['/none.txt'],
    ['/sub/empty/'],
    ['/sub/empty'],
    ['/app.js/x'],
    ['/%zz'],
    ['/%00'],
    ['/sub%2Findex.html'],
    ['/sub%5Cindex.html'],
    ['/pipe'],
    [`/${'x'.repeat(3000)}`],
  ])('%s is not found', async (path) => expect(await get(path)).toMatchObject({ status: 404, body: 'Not found' }))
  test.each([
    ['/.env'],
    ['/sub/../.env'],
    ['/../secret.txt'],
    ['/%2e%2e/secret.txt'],
    ['/.%2e/secret.txt'],
    ['/sub/%2E%2E/%2e%2e/secret.txt'],
    ['/link.txt'],
    ['/up/secret.txt'],
    ['/beside/x.txt'],
    ['/up/root-beside/x.txt'],
  ])('%s is forbidden', async (path) => {
    const answer = await get(path)
    expect([403, 404]).toContain(answer.status)
    expect(answer.body).not.toMatch(/secret|outside|beside/)
  })
  test.each([
    ['/.env'],
    ['/link.txt'],
    ['/beside/x.txt'],
    ['/zero'],
    ['/git/config'],
    ['/hidden.html'],
    ['/hidden/'],
    ['/..data/mounted.txt'],
  ])('%s is 403', async (path) => expect((await get(path)).status).toBe(403))
})

describe('a condition', () => {
  test('that the file has not changed answers 304', async () => {
    const { headers } = await get('/app.js')
    const etag = headers.get('ETag') ?? ''
    const modified = headers.get('Last-Modified') ?? ''
    for (const condition of [
      { 'If-None-Match': etag },
      { 'If-None-Match': `"x", ${etag}` },
      { 'If-None-Match': '*' },
      { 'If-Modified-Since': modified },
    ]) {
      const answer = await get('/app.js', condition as Record<string, string>)
      expect(answer).toMatchObject({ status: 304, body: '' })
      expect(answer.headers.get('ETag')).toBe(etag)
    }
  })
  test('that it has changed answers the file', async () => {
    for (const condition of [
      { 'If-None-Match': '"x"' },
      { 'If-Modified-Since': 'Thu, 01 Jan 1970 00:00:00 GMT' },
      { 'If-None-Match': '"x"', 'If-Modified-Since': new Date(Date.now() + 1e6).toUTCString() },
      { 'If-Modified-Since': 'no date' },
    ]) {
      expect(await get('/app.js', condition as Record<string, string>)).toMatchObject({ status: 200, body: 'export {}' })
    }
  })
  test('that it must be another answers 412', async () => {
    expect((await get('/app.js', { 'If-Match': '"x"' })).status).toBe(412)
    expect((await get('/app.js', { 'If-Match': '*' })).status).toBe(200)
    expect((await get('/app.js', { 'If-Unmodified-Since': 'Thu, 01 Jan 1970 00:00:00 GMT' })).status).toBe(412)
  })
})

describe('a range', () => {
  test.each([
    ['bytes=0-4', 'aaaaa', 'bytes 0-4/100000'],
    ['bytes=99998-', 'az', 'bytes 99998-99999/100000'],
    ['bytes=-1', 'z', 'bytes 99999-99999/100000'],
    ['bytes=99999-200000', 'z', 'bytes 99999-99999/100000'],
    ['bytes=-200000', body, 'bytes 0-99999/100000'],
  ])('%s is that part', async (range, text, content) => {
    const answer = await get('/big.bin', { Range: range })
    expect(answer.status).toBe(206)
    expect(answer.body).toBe(text)
    expect(answer.headers.get('Content-Range')).toBe(content)
    expect(answer.headers.get('Content-Length')).toBe(String(text.length))
  })
  test.each([['bytes=100000-'], ['bytes=-0']])('%s lies outside', async (range) => {
    const answer = await get('/big.bin', { Range: range })
    expect(answer.status).toBe(416)
    expect(answer.headers.get('Content-Range')).toBe('bytes */100000')
  })
  test.each([['bytes=5-4'], ['bytes=0-1,4-5'], ['lines=0-1'], ['bytes=-'], ['bytes=a-b']])('%s gets the whole', async (range) => {
    expect((await get('/big.bin', { Range: range })).status).toBe(200)
  })
  test('for another version gets the whole', async () => {
    const { headers } = await get('/big.bin')
    expect((await get('/big.bin', { Range: 'bytes=0-4', 'If-Range': 'Thu, 01 Jan 1970 00:00:00 GMT' })).status).toBe(200)
    expect((await get('/big.bin', { Range: 'bytes=0-4', 'If-Range': headers.get('Last-Modified') ?? '' })).status).toBe(206)
  })
})

test('without a folder every path answers 200 with a short text', async () => {
  await using plain = await start({ PGWS_DB_URI: database().uri })
  for (const path of ['/', '/health', '/any/path?x=1', '/.env', '/%zz']) {
    for (const method of ['GET', 'HEAD', 'PUT']) {
      const answer = await request(plain.port, method, path, { Host: 'x', Connection: 'close', 'Content-Length': '0' })
      expect(answer.status).toBe(200)
      expect(answer.headers.get('Content-Type')).toStartWith('text/plain')
      expect(answer.headers.get('Server')).toMatch(/^postgres-websockets\/\d+\.\d+\.\d+$/)
    }
  }
})
