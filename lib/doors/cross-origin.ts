/** Owns what pages of other origins may ask: the headers of CORS (Fetch Standard section 3.3). Cookies and the like never count. */

export interface CrossOrigin {
  /** Answers whether a page may send a request at all. */
  preflight(request: Request): Response
  /** Lets pages of the allowed origins read an answer. */
  share(request: Request, response: Response): Response
}

export const isPreflight = ({ method, headers }: Request): boolean =>
  method === 'OPTIONS' && headers.has('Origin') && headers.has('Access-Control-Request-Method')

/** Seconds for which a browser need not ask again. */
const MAX_AGE = '600'

/** @param allowed undefined allows any. @param product what an answer names as its server. */
export function createCrossOrigin(allowed: readonly string[] | undefined, product: string): CrossOrigin {
  function share({ headers }: Request, response: Response): Response {
    if (allowed === undefined) {
      response.headers.set('Access-Control-Allow-Origin', '*')
      return response
    }
    const origin = headers.get('Origin')
    response.headers.append('Vary', 'Origin')
    if (origin !== null && allowed.includes(origin)) response.headers.set('Access-Control-Allow-Origin', origin)
    return response
  }

  return {
    share,
    preflight: (request) =>
      share(
        request,
        new Response(null, {
          status: 204,
          headers: {
            'Access-Control-Allow-Methods': 'GET, HEAD, POST',
            'Access-Control-Allow-Headers': 'Authorization, Content-Type, Idempotency-Key, Last-Event-ID',
            'Access-Control-Max-Age': MAX_AGE,
            Server: product,
          },
        }),
      ),
  }
}
