// sdk/vectors: the authority's own verdicts, which must be ours.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mock, test } from 'node:test';
import { inner } from './inner.mjs';

const { TokenVerifier } = await inner('tokens');
const { refreshRefusal } = await inner('authority');
const { SessionCookieJar } = await inner('cookies');
const { checkCsrfToken, checkOrigin, isSafe, tokenWith } = await inner('csrf');
const { judgeBearer } = await inner('middleware');

const read = (name) => JSON.parse(readFileSync(new URL(`../../../vectors/${name}.json`, import.meta.url)));

test('access tokens are judged as the authority judges them', async (t) => {
  const { issuer, audience, now, jwks, claims, cases } = read('tokens');
  mock.timers.enable({ apis: ['Date'], now: now * 1000 });
  t.after(() => mock.timers.reset());
  const answers = { '/.well-known/jwks.json': jwks, '/.well-known/oauth-authorization-server': { issuer } };
  const transport = { ask: async ({ path }) => ({ json: answers[path] }) };
  const feed = { keyState: () => undefined, against: () => undefined };
  const verifier = new TokenVerifier(transport, feed, audience);
  assert.ok(cases.length > 30);
  for (const { name, token, verdict } of cases) {
    let found;
    try {
      judgeBearer(token);
      const verified = await verifier.verify(token);
      // Not judged here but by the authority, which says what the vector says.
      found = verified === undefined ? 'asked' : 'valid';
      if (name === 'as issued') assert.deepEqual(claims, { sub: verified.sub, role: verified.role, epoch: verified.epoch });
    } catch (refusal) {
      found = refusal.code ?? refusal;
    }
    if (found === 'asked') assert.equal(JSON.parse(Buffer.from(token.split('.')[0], 'base64url')).alg, 'HS256', name);
    else assert.equal(found, verdict, name);
  }
});

test('CSRF tokens are made and taken as the authority does', () => {
  const { key, random, made, tokens } = read('csrf');
  assert.equal(tokenWith(key, Buffer.from(random, 'base64url')), made);
  for (const { name, token, passes } of tokens) assert.equal(checkCsrfToken(key, token), passes, name);
});

test('origins are judged as the authority judges them', () => {
  const { own_origin: own, allowed_origins: allowed, origins } = read('csrf');
  for (const { method, headers, refused } of origins) {
    const lower = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
    const req = { headers: lower, rawHeaders: Object.entries(headers).flat() };
    const why = isSafe(method) ? undefined : checkOrigin(req, own, allowed);
    const step = why === undefined ? null : Number(/^step (\d)/.exec(why)[1]);
    assert.equal(step, refused, `${method} ${JSON.stringify(headers)}`);
  }
});

test('session cookies are read as the authority reads them', () => {
  for (const { name, cookie, session } of read('cookies').cases) {
    const found = new SessionCookieJar(name).find(cookie, name.startsWith('__'));
    const value = found === 'none' ? null : found === 'several' ? 'several' : found.token;
    assert.equal(value, session, `${name}: ${cookie}`);
  }
});

test("a refresh's refusals are told apart by the authority's words", () => {
  const { refusals } = read('refusals');
  const codes = ['token_expired', 'token_invalid', 'token_wrong_type', 'refresh_token_reused', 'session_ended'];
  for (const code of codes) {
    const { detail } = refusals.find((one) => one.code === code);
    const json = { error: 'invalid_grant', error_description: detail };
    const refusal = refreshRefusal({ status: 400, headers: {}, text: '', json });
    assert.deepEqual([refusal.code, refusal.status], [code, 401]);
  }
  // By its own code, whatever the words.
  const json = { error: 'invalid_grant', error_description: 'x', code: 'session_ended', reason: 'signed_out' };
  const refusal = refreshRefusal({ status: 400, headers: {}, text: '', json });
  assert.deepEqual([refusal.code, refusal.status, refusal.reason], ['session_ended', 401, 'signed_out']);
});
