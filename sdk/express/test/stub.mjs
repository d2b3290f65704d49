// What an authority shows its verifiers, as told: keys that a thief holds, a feed, a clock.
import http from 'node:http';
import * as jose from 'jose';

const EMPTY = { sessions: [], subjects: [], tokens: [], keys: [], all: null };

/** A key pair whose private half a test may sign with. */
export async function keyPair(kid) {
  const { publicKey, privateKey } = await jose.generateKeyPair('EdDSA', { extractable: true });
  return { kid, privateKey, jwk: { ...(await jose.exportJWK(publicKey)), kid, alg: 'EdDSA', use: 'sig' } };
}

/** An access token of anybody's making. */
export function forge({ kid, privateKey }, { expiresIn = 900, ...claims } = {}) {
  const now = Math.floor(Date.now() / 1000);
  return new jose.SignJWT({ sid: '01M86WA7FS00K6200T076SF2ZZ', auth_time: now, amr: [], acr: 'aal1', epoch: 9, ...claims })
    .setProtectedHeader({ alg: 'EdDSA', kid, typ: 'at+jwt' })
    .setIssuer('http://stub').setAudience('cloakroom').setSubject('usr_admin').setJti('j'.repeat(24))
    .setIssuedAt(now).setNotBefore(now - 5).setExpirationTime(now + expiresIn)
    .sign(privateKey);
}

/** Listens on a free port; `state` may be changed while it runs. */
export async function startStub(keys) {
  const state = { keys, aheadMs: 0, told: EMPTY, session: undefined, asked: [], traces: [] };
  const streams = new Set();
  const answers = {
    '/.well-known/jwks.json': () => ({ keys: state.keys.map(({ jwk }) => jwk) }),
    '/.well-known/oauth-authorization-server': () => ({ issuer: 'http://stub' }),
    '/readyz': () => ({}),
    '/admin/v1/revocations': () => ({ ...state.told, cursor: 'c0' }),
    '/admin/v1/sessions?limit=1': () => ({ sessions: [] }),
    '/admin/v1/sessions/touch': () => ({}),
    '/admin/v1/sessions/verify': () => state.session && { session: state.session },
  };
  const server = http.createServer((req, res) => {
    state.asked.push(req.url);
    state.traces.push([req.url, req.headers.traceparent]);
    if (req.url === '/admin/v1/revocations/stream') {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      streams.add(res);
      res.on('close', () => streams.delete(res));
      beat(res);
      return;
    }
    const found = req.url.endsWith('/data') ? {} : answers[req.url]?.();
    const refusal = { code: 'token_invalid', status: 401, detail: 'the token is invalid' };
    res.writeHead(found ? 200 : 401, { 'content-type': 'application/json' });
    res.end(JSON.stringify(found ?? refusal));
  });
  const write = (stream, event, data) => stream.write(`event: ${event}\nid: c1\ndata: ${JSON.stringify(data)}\n\n`);
  const beat = (stream) => write(stream, 'heartbeat', { at: new Date(Date.now() + state.aheadMs).toISOString() });
  const timer = setInterval(() => streams.forEach(beat), 250);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return Object.assign(state, {
    url: `http://127.0.0.1:${server.address().port}`,
    tell: (event, data) => streams.forEach((stream) => write(stream, event, data)),
    /** The log doesn't reach back to where the verifier was. */
    reset() {
      state.tell('reset', {});
      for (const stream of streams) stream.end();
    },
    close() {
      clearInterval(timer);
      server.closeAllConnections();
      server.close();
    },
  });
}
