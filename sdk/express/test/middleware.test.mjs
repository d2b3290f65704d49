import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  cloakroom, csrf, login, logout, logoutEverywhere, problems, rateLimit, requireAuth, requireClaim,
  requireRecentAuth,
} from 'cloakroom-express';
import { eventually, pause } from './authority.mjs';
import { browser, caught, express, listener, startAuthority, version } from './world.mjs';

let authority;
let ck;
let app;
const log = listener();
let release;
let slow;
/** Resolves for the first caller when the second has come, so that both have read their session. */
let met;
function meet() {
  if (!met) return new Promise((resolve) => (met = resolve));
  met();
  met = undefined;
  return undefined;
}

function application(middleware) {
  const made = express();
  made.use(express.urlencoded({ extended: false }), express.json());
  made.use(middleware);
  made.get('/csrf', caught(async (req, res) => res.json({ token: await req.csrfToken() })));
  made.post('/login', csrf(), caught(async (req, res) => {
    const { name, role = 'user', delivery } = req.body;
    const claims = { email: `${name}@example.com`, role };
    res.json(await login(req, { subject: name, claims, delivery }));
  }));
  made.get('/me', requireAuth(), (req, res) => res.json({ user: req.user, via: req.auth.via, id: req.session.id }));
  made.get('/admin', requireClaim('role', 'admin'), (req, res) => res.json({ ok: true }));
  made.get('/recent', requireRecentAuth('1s'), (req, res) => res.json({ ok: true }));
  made.get('/limited', rateLimit({ limit: 2, window: '1m' }), (req, res) => res.json({ ok: true }));
  made.post('/logout', csrf(), requireAuth(), caught(async (req, res) => {
    await logout(req);
    res.status(204).end();
  }));
  made.post('/everywhere', csrf(), requireAuth(), caught(async (req, res) => {
    res.json({ revoked: await logoutEverywhere(req) });
  }));
  made.get('/data', (req, res) => res.json({ ...req.session }));
  made.get('/set/:key/:value', (req, res) => {
    req.session[req.params.key] = JSON.parse(req.params.value);
    res.json({ ok: true });
  });
  made.get('/together/:key/:value', caught(async (req, res) => {
    await meet();
    req.session[req.params.key] = JSON.parse(req.params.value);
    res.json({ ok: true });
  }));
  made.get('/remove/:key', (req, res) => {
    delete req.session[req.params.key];
    res.json({ ok: true });
  });
  made.get('/slow/:key', caught(async (req, res) => {
    req.session[req.params.key] = true;
    slow?.();
    await release;
    res.json({ ok: true });
  }));
  made.get('/regenerate', (req, res, next) => {
    req.session.regenerate((fault) => {
      if (fault) return next(fault);
      req.session.fresh = true;
      req.session.save((unsaved) => (unsaved ? next(unsaved) : res.json({ id: req.session.id })));
    });
  });
  made.get('/destroy', (req, res, next) => req.session.destroy((fault) => (fault ? next(fault) : res.json({}))));
  made.get('/reload', caught(async (req, res) => {
    req.session.unsaved = 1;
    await req.session.reload();
    res.json({ ...req.session });
  }));
  made.use(problems());
  return made;
}

before(async () => {
  authority = await startAuthority({ env: { CLOAKROOM_SESSION__IDLE: '60s' } });
  ck = cloakroom({ url: authority.url, apiKey: authority.apiKey, logger: log, signInUrl: '/sign-in' });
  await ck.ready();
  app = application(ck);
});

after(async () => {
  ck.close();
  await authority.close();
});

async function signIn(visitor, name, more = {}) {
  const { body } = await visitor.get('/csrf');
  const headers = { 'x-csrf-token': body.token };
  const answer = await visitor.post('/login', { headers, body: { name, ...more } });
  assert.equal(answer.status, 200, answer.text);
  return answer;
}

test(`the tests run on Express ${version}`, async () => {
  const { createRequire } = await import('node:module');
  const name = version === 4 ? 'express4' : 'express';
  const { version: installed } = createRequire(import.meta.url)(`${name}/package.json`);
  assert.equal(Number(installed.split('.')[0]), version);
});

test('a visitor without a session gets no cookie and no session', async () => {
  const visitor = browser(app);
  const answer = await visitor.get('/data');
  assert.deepEqual(answer.body, {});
  assert.equal(answer.headers['set-cookie'], undefined);
});

test('what is set on req.session is there at the next request', async () => {
  const visitor = browser(app);
  const answer = await visitor.get('/set/cart/{"apple":2}');
  assert.match(answer.headers['set-cookie'][0], /^session=cks_.*; Path=\/; HttpOnly; SameSite=Lax$/);
  assert.deepEqual((await visitor.get('/data')).body, { cart: { apple: 2 } });
  await visitor.get('/set/theme/"dark"');
  await visitor.get('/remove/cart');
  assert.deepEqual((await visitor.get('/data')).body, { theme: 'dark' });
});

test('null is a value like another', async () => {
  const visitor = browser(app);
  await visitor.get('/set/a/1');
  await visitor.get('/set/choice/null');
  await visitor.get('/set/deep/{"in":null,"out":[null,1]}');
  assert.deepEqual((await visitor.get('/data')).body, { a: 1, choice: null, deep: { in: null, out: [null, 1] } });
});

test('signing in changes the id, keeps what the session remembered, and ends the one before', async () => {
  const visitor = browser(app);
  await visitor.get('/set/cart/{"apple":2}');
  const anonymous = visitor.jar.get('session');
  await signIn(visitor, 'ada');
  assert.notEqual(visitor.jar.get('session'), anonymous);
  const me = await visitor.get('/me');
  assert.deepEqual(me.body.user, { id: 'ada', email: 'ada@example.com', role: 'user' });
  assert.equal(me.body.via, 'cookie');
  assert.deepEqual((await visitor.get('/data')).body, { cart: { apple: 2 } });
  visitor.jar.set('session', anonymous);
  assert.equal((await visitor.get('/me')).body.code, 'session_ended');
});

test('a 401 is JSON for programs and a redirect for browsers, which come back', async () => {
  const visitor = browser(app);
  const program = await visitor.get('/me?x=1');
  assert.equal(program.status, 401);
  assert.match(program.headers['content-type'], /^application\/problem\+json/);
  assert.equal(program.headers['www-authenticate'], 'Bearer');
  assert.equal(program.body.code, 'credentials_required');
  const page = await visitor.get('/me?x=1', { headers: { accept: 'text/html,*/*;q=0.8' } });
  assert.equal(page.status, 302);
  assert.equal(page.headers.location, '/sign-in?return_to=%2Fme%3Fx%3D1');
});

test('hooks answer in place of us', async () => {
  const own = cloakroom({
    url: authority.url,
    apiKey: authority.apiKey,
    onUnauthenticated: (refusal, req, res) => res.status(418).json({ was: refusal.code }),
    onForbidden: (refusal, req, res) => res.status(451).json({ was: refusal.code }),
  });
  const visitor = browser(application(own));
  assert.deepEqual([(await visitor.get('/me')).status, (await visitor.get('/me')).body.was], [418, 'credentials_required']);
  await signIn(visitor, 'hook');
  const forbidden = await visitor.get('/admin');
  assert.deepEqual([forbidden.status, forbidden.body.was], [451, 'insufficient_claims']);
  own.close();
});

test('a claim is compared exactly, and sought in an array', async () => {
  const [user, admin, both] = [browser(app), browser(app), browser(app)];
  await signIn(user, 'u1');
  await signIn(admin, 'u2', { role: 'admin' });
  await signIn(both, 'u3', { role: ['editor', 'admin'] });
  assert.equal((await user.get('/admin')).body.code, 'insufficient_claims');
  assert.equal((await admin.get('/admin')).status, 200);
  assert.equal((await both.get('/admin')).status, 200);
});

test('a sign-in grows too old for what needs a recent one', async () => {
  const visitor = browser(app);
  await signIn(visitor, 'rec');
  assert.equal((await visitor.get('/recent')).status, 200);
  await pause(1_100);
  const answer = await visitor.get('/recent');
  assert.deepEqual([answer.status, answer.body.code], [401, 'reauthentication_required']);
});

test('what one process has written is there at the next request to another', async () => {
  const other = cloakroom({ url: authority.url, apiKey: authority.apiKey });
  await other.ready();
  const [here, there] = [browser(app), browser(application(other))];
  await here.get('/set/at/0');
  for (let at = 1; at <= 10; at += 1) {
    there.jar.set('session', here.jar.get('session'));
    await there.get('/data');
    await here.get(`/set/at/${at}`);
    for (const [name, value] of here.jar) there.jar.set(name, value);
    assert.equal((await there.get('/data')).body.at, at);
  }
  assert.match(here.jar.get('cloakroom-seen'), /^\d+$/);
  other.close();
});

test('d1 an unsafe request by cookie needs a token of its own session', async () => {
  const [ada, eve] = [browser(app), browser(app)];
  await signIn(ada, 'c1');
  await signIn(eve, 'c2');
  const { token } = (await ada.get('/csrf')).body;
  const foreign = (await eve.get('/csrf')).body.token;
  for (const headers of [{}, { 'x-csrf-token': foreign }, { 'x-csrf-token': 'x' }]) {
    const refused = await ada.post('/logout', { headers });
    assert.deepEqual([refused.status, refused.body.code], [403, 'csrf_failed']);
  }
  assert.equal((await ada.get('/me')).status, 200);
  assert.equal((await ada.post('/logout', { form: { csrf_token: token } })).status, 204);
  assert.equal((await ada.get('/me')).status, 401);
});

test('d3 a request that another site sent is refused before any handler', async () => {
  const ada = browser(app);
  await signIn(ada, 'o1');
  const { token } = (await ada.get('/csrf')).body;
  for (const headers of [
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { origin: 'null' },
    { origin: 'https://evil.example' },
    { referer: 'https://evil.example/page' },
  ]) {
    const refused = await ada.post('/logout', { headers: { ...headers, 'x-csrf-token': token } });
    assert.deepEqual([refused.status, refused.body.code], [403, 'csrf_failed'], JSON.stringify(headers));
  }
  const headers = { 'sec-fetch-site': 'same-origin', 'x-csrf-token': token };
  assert.equal((await ada.post('/logout', { headers })).status, 204);
});

test('a browser must have a token to sign in, a program without cookies must not', async () => {
  const crossSite = browser(app);
  const refused = await crossSite.post('/login', { body: { name: 'x' }, headers: { origin: 'https://evil.example' } });
  assert.equal(refused.body.code, 'csrf_failed');
  const program = await browser(app).post('/login', { body: { name: 'prog', delivery: 'bearer' } });
  assert.equal(program.status, 200);
  assert.deepEqual(
    Object.keys(program.body).sort(),
    ['access_token', 'expires_in', 'refresh_expires_in', 'refresh_token', 'sid', 'token_type'],
  );
  assert.equal(program.headers['set-cookie'], undefined);
});

test('CSRF tokens made here are good at the authority', async () => {
  const visitor = browser(app);
  await signIn(visitor, 'csrf-there');
  const { token } = (await visitor.get('/csrf')).body;
  const send = (csrfToken) => fetch(`${authority.publicUrl}/auth/logout`, {
    method: 'POST',
    headers: { cookie: `session=${visitor.jar.get('session')}`, 'x-csrf-token': csrfToken },
  });
  assert.equal((await send('A'.repeat(64))).status, 403);
  assert.equal((await send(token)).status, 204);
});

test('bearer tokens are told apart: expired, invalid, of another type, ended', async () => {
  const bearer = (token) => ({ headers: { authorization: `Bearer ${token}` } });
  const { body } = await browser(app).post('/login', { body: { name: 'bea', delivery: 'bearer' } });
  const visitor = browser(app);
  const me = await visitor.get('/me', bearer(body.access_token));
  assert.deepEqual([me.status, me.body.user.id, me.body.user.role, me.body.via], [200, 'bea', 'user', 'bearer']);
  const [head, claims, signature] = body.access_token.split('.');
  const forged = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(claims, 'base64url')), sub: 'root' }));
  const none = Buffer.from('{"alg":"none","typ":"at+jwt"}').toString('base64url');
  for (const [token, code] of [
    [body.refresh_token, 'token_wrong_type'],
    [`${head}.${forged.toString('base64url')}.${signature}`, 'token_invalid'],
    [`${none}.${claims}.${signature}`, 'token_invalid'],
    ['garbage', 'token_invalid'],
    ['', 'token_invalid'],
  ]) {
    const refused = await visitor.get('/me', bearer(token));
    assert.deepEqual([refused.status, refused.body.code], [401, code], token);
    assert.match(refused.headers['www-authenticate'], /^Bearer error="invalid_token"$/);
  }
  assert.equal((await visitor.post('/logout', bearer(body.access_token))).status, 204);
  assert.equal((await visitor.get('/me', bearer(body.access_token))).body.code, 'session_ended');
  await assert.rejects(ck.refresh(body.refresh_token), { code: 'session_ended', status: 401 });
});

test('a bearer token decides, good or bad: no falling back to the cookie', async () => {
  const visitor = browser(app);
  await signIn(visitor, 'both');
  const answer = await visitor.get('/me', { headers: { authorization: 'Bearer x.y.z' } });
  assert.equal(answer.body.code, 'token_invalid');
});

test('a refresh answers new tokens, and its refusals are told apart', async () => {
  const { body } = await browser(app).post('/login', { body: { name: 'ref', delivery: 'bearer' } });
  const next = await ck.refresh(body.refresh_token);
  assert.notEqual(next.refresh_token, body.refresh_token);
  assert.equal(next.token_type, 'Bearer');
  await assert.rejects(ck.refresh(body.access_token), { code: 'token_wrong_type', status: 401 });
  await assert.rejects(ck.refresh('ckr_x'), { code: 'token_invalid', status: 401 });
  await new Promise((resolve, reject) => {
    ck.refresh('ckr_x', (fault) => (fault.code === 'token_invalid' ? resolve() : reject(fault)));
  });
});

test('an ending elsewhere is true here within the bound, for cookies and for tokens', async () => {
  const visitor = browser(app);
  await signIn(visitor, 'far');
  const { body: tokens } = await browser(app).post('/login', { body: { name: 'far', delivery: 'bearer' } });
  const headers = { authorization: `Bearer ${tokens.access_token}` };
  const { body: me } = await visitor.get('/me');
  assert.equal((await visitor.get('/me', { headers })).status, 200);
  await authority.admin('DELETE', `/sessions/${me.id}`);
  await eventually(async () => assert.equal((await visitor.get('/me')).body.code, 'session_ended'), 2_000);
  await authority.admin('DELETE', '/subjects/far/sessions');
  await eventually(
    async () => assert.equal((await browser(app).get('/me', { headers })).body.code, 'session_ended'),
    2_000,
  );
});

test('a claim changed elsewhere arrives here', async () => {
  const visitor = browser(app);
  await signIn(visitor, 'promoted');
  const { id } = (await visitor.get('/me')).body;
  assert.equal((await visitor.get('/admin')).status, 403);
  await authority.admin('PATCH', `/sessions/${id}`, { claims: { role: 'admin' } });
  await eventually(async () => assert.equal((await visitor.get('/admin')).status, 200), 2_000);
});

test('sign out everywhere ends all of one user and nobody else', async () => {
  const [one, two, other] = [browser(app), browser(app), browser(app)];
  await signIn(one, 'ev');
  await signIn(two, 'ev');
  await signIn(other, 'somebody');
  assert.equal((await two.get('/me')).status, 200);
  const { token } = (await one.get('/csrf')).body;
  const answer = await one.post('/everywhere', { headers: { 'x-csrf-token': token } });
  assert.deepEqual(answer.body, { revoked: 2 });
  assert.equal(one.jar.has('session'), false);
  assert.equal((await two.get('/me')).status, 401);
  assert.equal((await other.get('/me')).status, 200);
});

test('each session has its own limit', async () => {
  const [one, two] = [browser(app), browser(app)];
  await signIn(one, 'l1');
  await signIn(two, 'l2');
  const statuses = [];
  for (let at = 0; at < 3; at += 1) statuses.push((await one.get('/limited')).status);
  assert.deepEqual(statuses, [200, 200, 429]);
  const refused = await one.get('/limited');
  assert.deepEqual([refused.body.code, refused.headers['retry-after']], ['rate_limited', '30']);
  assert.equal(refused.headers['ratelimit-policy'], '"session";q=2;w=60');
  assert.equal((await two.get('/limited')).status, 200);
});

test('a fresh anonymous session is no fresh quota', async () => {
  const statuses = [];
  for (let at = 0; at < 4; at += 1) {
    const visitor = browser(app);
    await visitor.get('/csrf');
    const answer = await visitor.get('/limited');
    statuses.push(answer.status);
    assert.match(answer.headers['ratelimit-policy'], /^"network";/);
  }
  assert.deepEqual(statuses, [200, 200, 429, 429]);
});

test('a request by bearer token is asked for no CSRF token and given none', async () => {
  const { body } = await browser(app).post('/login', { body: { name: 'none', delivery: 'bearer' } });
  const answer = await browser(app).get('/csrf', { headers: { authorization: `Bearer ${body.access_token}` } });
  assert.deepEqual([answer.status, answer.body.token], [200, '']);
  assert.equal(answer.headers['set-cookie'], undefined);
});

test('concurrent requests that change different keys lose nothing', async () => {
  const visitor = browser(app);
  await signIn(visitor, 'conc');
  await visitor.get('/set/gone/1');
  const keys = Array.from({ length: 12 }, (_, at) => `k${at}`);
  const sent = keys.map((key) => visitor.get(`/set/${key}/1`));
  const all = await Promise.all([...sent, visitor.get('/remove/gone'), visitor.get('/set/nothing/null')]);
  assert.deepEqual([...new Set(all.map(({ status }) => status))], [200]);
  const { body } = await visitor.get('/data');
  assert.deepEqual(Object.keys(body).sort(), [...keys, 'nothing'].sort());
});

test('concurrent requests that change one object in different places lose nothing', async () => {
  const visitor = browser(app);
  await signIn(visitor, 'nest');
  await visitor.get('/set/cart/{"apple":1}');
  await Promise.all([visitor.get('/together/cart/{"apple":1,"pear":2}'), visitor.get('/together/cart/{"apple":5}')]);
  assert.deepEqual((await visitor.get('/data')).body.cart, { apple: 5, pear: 2 });
});

test('of two requests that change the same key the one that saves last wins', async () => {
  const visitor = browser(app);
  await signIn(visitor, 'same');
  let finish;
  release = new Promise((resolve) => (finish = resolve));
  const running = new Promise((resolve) => (slow = resolve));
  const late = visitor.get('/slow/choice');
  await running;
  assert.equal((await visitor.get('/set/choice/"first"')).status, 200);
  assert.equal((await visitor.get('/data')).body.choice, 'first');
  finish();
  assert.equal((await late).status, 200);
  assert.equal((await visitor.get('/data')).body.choice, true);
});

test('b4 a slow request that saves after the logout revives nothing', async () => {
  const visitor = browser(app);
  await signIn(visitor, 'slow');
  const { id } = (await visitor.get('/me')).body;
  const { token } = (await visitor.get('/csrf')).body;
  let finish;
  release = new Promise((resolve) => (finish = resolve));
  const running = new Promise((resolve) => (slow = resolve));
  const cookie = `session=${visitor.jar.get('session')}`;
  const late = browser(app);
  late.jar.set('session', visitor.jar.get('session'));
  const answer = late.get('/slow/late');
  await running;
  const before = ck.lateSaves;
  assert.equal((await visitor.post('/logout', { headers: { 'x-csrf-token': token } })).status, 204);
  finish();
  assert.equal((await answer).status, 200);
  assert.equal(ck.lateSaves, before + 1);
  const read = await authority.admin('GET', `/sessions/${id}`);
  assert.equal(read.body.session.ended.reason, 'signed_out');
  assert.equal((await browser(app).get('/me', { headers: { cookie } })).body.code, 'session_ended');
});

test('regenerate begins a new, empty session under a new id', async () => {
  const visitor = browser(app);
  await visitor.get('/set/old/1');
  const before = visitor.jar.get('session');
  await visitor.get('/regenerate');
  assert.notEqual(visitor.jar.get('session'), before);
  assert.deepEqual((await visitor.get('/data')).body, { fresh: true });
  visitor.jar.set('session', before);
  assert.deepEqual((await visitor.get('/data')).body, {});
});

test('destroy ends the session and clears the cookie', async () => {
  const visitor = browser(app);
  await visitor.get('/set/a/1');
  const cookie = visitor.jar.get('session');
  const answer = await visitor.get('/destroy');
  assert.match(answer.headers['set-cookie'][0], /^session=;.*Max-Age=0$/);
  visitor.jar.set('session', cookie);
  assert.deepEqual((await visitor.get('/data')).body, {});
});

test('reload reads what is stored and forgets what is not', async () => {
  const visitor = browser(app);
  await visitor.get('/set/a/1');
  assert.deepEqual((await visitor.get('/reload')).body, { a: 1 });
  assert.deepEqual((await visitor.get('/data')).body, { a: 1 });
});

test('cookies that are garbled, doubled, forged or foreign are nobody', async () => {
  const visitor = browser(app);
  await signIn(visitor, 'cook');
  const good = visitor.jar.get('session');
  const ask = async (cookie) => {
    const answer = await browser(app).get('/me', { headers: { cookie } });
    return [answer.status, answer.body.code];
  };
  assert.deepEqual(await ask(`session=${good}`), [200, undefined]);
  assert.deepEqual(await ask(`a=b; session=${good}; c`), [200, undefined]);
  assert.deepEqual(await ask(`session=${good}; session=${good}`), [401, 'credentials_required']);
  for (const bad of [`${good}x`, 'cks_', 'cks_%00', '"', 's%3Aabc.def', '\u00e9']) {
    const [status] = await ask(`session=${encodeURI(bad)}`);
    assert.equal(status, 401, bad);
  }
  assert.equal((await ask('session; =; ;;'))[0], 401);
});

test('a session in use outlives its idle timeout, by reports in batches', async () => {
  const short = await startAuthority({ env: { CLOAKROOM_SESSION__IDLE: '3s' } });
  const own = cloakroom({ url: short.url, apiKey: short.apiKey });
  const visitor = browser(application(own));
  await signIn(visitor, 'idle');
  for (let at = 0; at < 10; at += 1) {
    await pause(500);
    assert.equal((await visitor.get('/me')).status, 200, `after ${at / 2} s`);
  }
  await pause(4_500);
  assert.equal((await visitor.get('/me')).status, 401);
  own.close();
  await short.close();
});

test('the application that forgot the middleware is told the line', async () => {
  const bare = express();
  bare.get('/me', requireAuth());
  bare.use((fault, req, res, next) => res.status(fault.status).json({ detail: fault.detail }));
  const answer = await browser(bare).get('/me');
  assert.equal(answer.status, 500);
  assert.match(answer.body.detail, /app\.use\(cloakroom\(\{ url, apiKey \}\)\)/);
});

test('a refusal of the authority names its request there; one made here has none', async () => {
  const made = express();
  const caughtErrors = [];
  made.use(express.json(), ck);
  made.post('/login', caught(async (req, res) => res.json(await login(req, req.body))));
  made.get('/me', requireAuth(), (req, res) => res.json({}));
  made.use((error, req, res, next) => {
    caughtErrors.push(error);
    problems()(error, req, res, next);
  });
  const visitor = browser(made);
  assert.equal((await visitor.post('/login', { body: { subject: 'usr_r' } })).status, 200);
  const late = await browser(made).post('/login', { body: { subject: 'usr_r', epoch: 7 } });
  const [refused] = caughtErrors;
  assert.deepEqual([late.status, refused.status, refused.code], [409, 409, 'conflict']);
  assert.match(refused.requestId, /^[\w-]{16,}$/);
  assert.equal(late.body.request_id, refused.requestId);
  const anonymous = await browser(made).get('/me');
  assert.deepEqual([anonymous.status, 'request_id' in anonymous.body], [401, false]);
});
