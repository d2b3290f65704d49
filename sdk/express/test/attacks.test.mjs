// What an attacker would try, each by the way that once worked.
import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { cloakroom, csrf, login, logoutEverywhere, problems, requireAuth } from 'cloakroom-express';
import { eventually, pause } from './authority.mjs';
import { inner } from './inner.mjs';
import { forge, keyPair, startStub } from './stub.mjs';
import { browser, caught, express, listener, startAuthority } from './world.mjs';

const { Authority } = await inner('authority');
const { SessionCookieJar } = await inner('cookies');

let authority;
let app;
const made = [];

before(async () => {
  authority = await startAuthority();
  const ck = cloakroom({ url: authority.url, apiKey: authority.apiKey, logger: listener() });
  made.push(ck);
  await ck.ready();
  app = shop(ck);
});

after(async () => {
  for (const one of made) one.close();
  await authority.close();
});

/** As many applications are: the session first, then the parsers of bodies. */
function shop(ck) {
  const application = express();
  application.use(ck, express.json());
  application.get('/set/:key', (req, res) => {
    req.session[req.params.key] = req.params.key;
    res.json({});
  });
  application.get('/data', (req, res) => res.json({ ...req.session }));
  application.get('/me', requireAuth(), (req, res) => res.json({ id: req.user.id, actor: req.auth.actor }));
  application.get('/csrf', caught(async (req, res) => res.json({ token: await req.csrfToken() })));
  application.post('/pay', csrf(), (req, res) => res.json({ paid: true }));
  application.post('/login', caught(async (req, res) => {
    const { ends, ...options } = req.body;
    if (ends) await authority.admin('DELETE', `/sessions/${ends}`);
    const { access_token: token } = await login(req, options);
    res.json(token ? { token } : { ...req.session });
  }));
  application.post('/everywhere', requireAuth(), caught(async (req, res) => {
    res.json({ revoked: await logoutEverywhere(req) });
  }));
  // The idiom of express-session, for an application that keeps its user in the data.
  application.post('/own-login', caught(async (req, res) => {
    await req.session.regenerate();
    req.session.user = req.body.user;
    res.json({});
  }));
  application.use(problems());
  return application;
}

/** An application behind an authority whose keys the test holds. */
async function overStub(keys) {
  const stub = await startStub(keys);
  const ck = cloakroom({ url: stub.url, apiKey: 'cka_x', logger: listener() });
  made.push(stub, ck);
  await ck.ready();
  const application = shop(ck);
  const bearing = (token) => browser(application).get('/me', { headers: { authorization: `Bearer ${token}` } });
  return { stub, application, status: async (token) => (await bearing(token)).status, bearing };
}

test('e10 a revoked key stays revoked when it is removed later, as every key is', async () => {
  const [stolen, next] = [await keyPair('stolen'), await keyPair('next')];
  const { stub, status } = await overStub([stolen, next]);
  const before = await forge(stolen);
  assert.equal(await status(before), 200);
  stub.keys = [next];
  stub.tell('key', { kid: 'stolen', state: 'revoked' });
  stub.tell('key', { kid: 'next', state: 'active' });
  await eventually(async () => assert.equal(await status(before), 401));
  stub.tell('key', { kid: 'stolen', state: 'removed' });
  await pause(300);
  for (const token of [before, await forge(stolen, { expiresIn: 10 * 365 * 86_400 })]) {
    assert.equal(await status(token), 401);
  }
  assert.equal(await status(await forge(next)), 200);
});

test('e10 a key that was retired and removed signs nothing any more', async () => {
  const [old, next] = [await keyPair('old'), await keyPair('next')];
  const { stub, status } = await overStub([old, next]);
  assert.equal(await status(await forge(old)), 200);
  stub.tell('key', { kid: 'old', state: 'removed' });
  await eventually(async () => assert.equal(await status(await forge(old)), 401));
  // A node that lags behind publishes it a while longer.
  stub.tell('key', { kid: 'next', state: 'active' });
  assert.equal(await status(await forge(next)), 200);
  assert.equal(await status(await forge(old)), 401);
});

test('e10 a key that was revoked and removed in an outage is not known after it', async () => {
  const [stolen, next] = [await keyPair('stolen'), await keyPair('next')];
  const { stub, status } = await overStub([stolen, next]);
  const before = await forge(stolen);
  assert.equal(await status(before), 200);
  stub.keys = [next];
  stub.reset();
  await eventually(() => assert.equal(stub.asked.filter((url) => url === '/admin/v1/revocations').length, 2));
  await pause(600);
  assert.equal(await status(before), 401);
  assert.equal(await status(await forge(stolen)), 401);
  assert.equal(await status(await forge(next)), 200);
});

test('e10 a key revoked at the authority verifies nothing within the staleness and a heartbeat', async () => {
  const own = await startAuthority();
  const ck = cloakroom({ url: own.url, apiKey: own.apiKey, maxStaleness: 2_000, logger: listener() });
  try {
    await ck.ready();
    const application = shop(ck);
    const body = { subject: 'usr_k', delivery: 'bearer' };
    const { token } = (await browser(application).post('/login', { body })).body;
    const headers = { authorization: `Bearer ${token}` };
    const asked = () => browser(application).get('/me', { headers });
    assert.equal((await asked()).status, 200);
    const { kid } = JSON.parse(Buffer.from(token.split('.')[0], 'base64url'));
    assert.equal((await own.admin('POST', `/keys/${kid}/revoke`)).status, 200);
    await eventually(async () => {
      const { status, body: told } = await asked();
      assert.deepEqual([status, told.code], [401, 'token_invalid']);
    }, 2_500);
  } finally {
    ck.close();
    await own.close();
  }
});

test('a clock that is behind takes no token that has run out', async () => {
  const key = await keyPair('key');
  const { stub, status } = await overStub([key]);
  assert.equal(await status(await forge(key)), 200);
  // By the authority's clock it expired 45 minutes ago; asked, it says so.
  stub.aheadMs = 3_600_000;
  stub.tell('heartbeat', { at: new Date(Date.now() + stub.aheadMs).toISOString() });
  await eventually(async () => assert.equal(await status(await forge(key)), 401));
});

test('whoever acts as the user is told, by cookie and by token', async () => {
  const key = await keyPair('key');
  const { stub, application, bearing } = await overStub([key]);
  const asked = await bearing(await forge(key, { act: { sub: 'usr_support' } }));
  assert.deepEqual(asked.body, { id: 'usr_admin', actor: 'usr_support' });
  const at = new Date().toISOString();
  const until = new Date(Date.now() + 3_600_000).toISOString();
  stub.session = {
    id: '01M86WA7FS00K6200T076SF2ZY', subject: 'usr_v', actor: 'usr_support', claims: {}, amr: [], acr: 'aal1',
    created_at: at, last_seen_at: at, auth_time: at, idle_expires_at: until, expires_at: until, csrf_key: 'A'.repeat(43),
  };
  const visitor = browser(application);
  visitor.jar.set('session', 'cks_x');
  assert.deepEqual((await visitor.get('/me')).body, { id: 'usr_v', actor: 'usr_support' });
});

test('an impersonation is told, and ends no session but itself', async () => {
  const own = browser(app);
  await own.post('/login', { body: { subject: 'usr_i' } });
  const visitor = browser(app);
  await visitor.post('/login', { body: { subject: 'usr_i', actor: 'usr_support' } });
  assert.deepEqual((await visitor.get('/me')).body, { id: 'usr_i', actor: 'usr_support' });
  const answer = await visitor.post('/everywhere');
  assert.deepEqual([answer.status, answer.body.code], [403, 'forbidden']);
  const { body } = await visitor.post('/login', { body: { subject: 'usr_i', actor: 'usr_support', delivery: 'bearer' } });
  const headers = { authorization: `Bearer ${body.token}` };
  assert.deepEqual((await browser(app).get('/me', { headers })).body, { id: 'usr_i', actor: 'usr_support' });
  assert.equal((await browser(app).post('/everywhere', { headers })).status, 403);
  assert.deepEqual((await own.get('/me')).body, { id: 'usr_i' });
  assert.equal((await own.post('/everywhere')).body.revoked, 3);
});

test('c2 nothing but the exact name is the session cookie', async () => {
  const jar = () => new SessionCookieJar('__Host-session');
  for (const strange of ['\u00a0', '\u000b', '\u000c', '\ufeff', '\u2000', '"', '\r', 'x']) {
    assert.equal(jar().find(`${strange}__Host-session=cks_x`, true), 'none', JSON.stringify(strange));
    assert.equal(jar().find(`a=b; ${strange}__Host-session=cks_x`, true), 'none', JSON.stringify(strange));
    assert.equal(jar().find(`__Host-session${strange}=cks_x`, true), 'none', JSON.stringify(strange));
  }
  assert.deepEqual(jar().find('a=b; \t__Host-session=cks_x', true), { token: 'cks_x' });
  assert.equal(jar().find('__Host-session =cks_x', true), 'none');
  assert.equal(jar().seen('\u00a0cloakroom-seen=7'), undefined);
});

test('c2 a byte that looks like a blank, over the wire, makes no session cookie', async () => {
  const visitor = browser(app);
  await visitor.post('/login', { body: { subject: 'victim' } });
  const server = app.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const cookie = `session=${visitor.jar.get('session')}`;
  assert.match(await raw(server.address().port, cookie), /"victim"/);
  assert.match(await raw(server.address().port, `\u00a0${cookie}`), /credentials_required/);
  server.close();
});

/** The answer to `GET /me` with this cookie, each character a byte. */
function raw(port, cookie) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    let answer = '';
    socket.on('data', (chunk) => (answer += chunk));
    socket.on('end', () => resolve(answer));
    socket.write(Buffer.from(`GET /me HTTP/1.1\r\nHost: x\r\nCookie: ${cookie}\r\nConnection: close\r\n\r\n`, 'latin1'));
  });
}

test('a3 a request that was open before a sign-in gets no cookie of its user', async () => {
  const planted = browser(app);
  await planted.get('/set/seen');
  const cookie = `session=${planted.jar.get('session')}`;
  const server = app.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const headers = { cookie, 'content-type': 'application/json', 'content-length': 18 };
  const { port } = server.address();
  // It has passed the session middleware, and waits for its body.
  const open = http.request({ port, path: '/own-login', method: 'POST', headers });
  const answered = new Promise((resolve) => open.once('response', resolve));
  open.write('{"user":');
  await pause(300);
  const victim = browser(app);
  victim.jar.set('session', planted.jar.get('session'));
  await victim.post('/own-login', { body: { user: 'victim' } });
  assert.notEqual(`session=${victim.jar.get('session')}`, cookie);
  open.end('"mallory"}');
  const answer = await answered;
  answer.resume();
  server.close();
  assert.equal(answer.statusCode, 200);
  const [line] = answer.headers['set-cookie'];
  planted.jar.set('session', /session=([^;]+)/.exec(line)[1]);
  assert.notEqual(planted.jar.get('session'), victim.jar.get('session'));
  assert.deepEqual((await planted.get('/data')).body, { user: 'mallory' });
  assert.deepEqual((await victim.get('/data')).body, { user: 'victim' });
});

test('what one user leaves behind is not the next one\'s; what a visitor had is', async () => {
  const visitor = browser(app);
  await visitor.get('/set/cart');
  const first = await visitor.post('/login', { body: { subject: 'usr_a' } });
  assert.deepEqual(first.body, { cart: 'cart' });
  await visitor.get('/set/mfa_passed');
  const again = await visitor.post('/login', { body: { subject: 'usr_a' } });
  assert.deepEqual(again.body, { cart: 'cart', mfa_passed: 'mfa_passed' });
  const second = await visitor.post('/login', { body: { subject: 'usr_b', data: { welcome: true } } });
  assert.deepEqual(second.body, { welcome: true });
  assert.deepEqual((await visitor.get('/data')).body, { welcome: true });
  assert.equal((await visitor.get('/me')).body.id, 'usr_b');
});

test('whose data a session is may say itself: another one\'s stays behind then too', async () => {
  const ck = cloakroom({
    url: authority.url, apiKey: authority.apiKey, logger: listener(), subject: (data) => data.passport?.user,
  });
  made.push(ck);
  const application = express();
  application.use(ck);
  // Without `regenerate`, as Passport did before 0.6.
  application.get('/as/:user', (req, res) => {
    req.session.passport = { user: req.params.user };
    res.json({});
  });
  application.get('/out', (req, res) => {
    delete req.session.passport.user;
    res.json({});
  });
  application.get('/me', requireAuth(), (req, res) => res.json({}));
  application.get('/set/:key', (req, res) => {
    req.session[req.params.key] = 1;
    res.json({});
  });
  application.get('/data', (req, res) => res.json({ ...req.session }));
  const visitor = browser(application);
  await visitor.get('/set/cart');
  await visitor.get('/as/ada');
  await visitor.get('/set/secret');
  assert.deepEqual((await visitor.get('/data')).body, { cart: 1, passport: { user: 'ada' }, secret: 1 });
  await visitor.get('/as/bob');
  assert.deepEqual((await visitor.get('/data')).body, { passport: { user: 'bob' } });
  const former = visitor.jar.get('session');
  await visitor.get('/out');
  assert.equal((await visitor.get('/me')).body.code, 'credentials_required', 'nobody is signed in by it any more');
  visitor.jar.set('session', former);
  assert.equal((await visitor.get('/me')).body.code, 'session_ended');
});

test('a sign-in over a session that ends meanwhile works, also with an epoch', async () => {
  const slow = browser(app);
  await slow.get('/set/cart');
  const { body } = await authority.admin('POST', '/sessions/verify', { token: slow.jar.get('session') });
  const answer = await slow.post('/login', { body: { subject: 'usr_e', epoch: 0, ends: body.session.id } });
  assert.equal(answer.status, 200, answer.text);
  await authority.admin('DELETE', '/subjects/usr_e/sessions');
  const late = await browser(app).post('/login', { body: { subject: 'usr_e', epoch: 0 } });
  assert.deepEqual([late.status, late.body.code], [409, 'conflict']);
  await slow.get('/set/cart');
  const later = await slow.post('/login', { body: { subject: 'usr_e', epoch: 0 } });
  assert.deepEqual([later.status, later.body.code], [409, 'conflict'], 'over a session too');
});

test('a sign-out everywhere while the password was checked wins', async () => {
  const ck = cloakroom({ url: authority.url, apiKey: authority.apiKey, logger: listener() });
  made.push(ck);
  assert.equal(await ck.epochOf('usr_w'), 0, 'who never had a session');
  await browser(app).post('/login', { body: { subject: 'usr_w' } });
  const epoch = await ck.epochOf('usr_w');
  assert.equal((await browser(app).post('/login', { body: { subject: 'usr_w', epoch } })).status, 200);
  await authority.admin('DELETE', '/subjects/usr_w/sessions');
  const late = await browser(app).post('/login', { body: { subject: 'usr_w', epoch } });
  assert.deepEqual([late.status, late.body.code], [409, 'conflict']);
  assert.equal(await ck.epochOf('usr_w'), epoch + 1);
  const created = await authority.admin('POST', '/api-keys', { name: 'x', scopes: ['sessions:read'] });
  const short = cloakroom({ url: authority.url, apiKey: created.body.secret, logger: listener() });
  made.push(short);
  await assert.rejects(short.epochOf('usr_w'), (fault) => fault.code === 'api_key_refused');
});

test('d1 a header that names no bearer token switches no check off', async () => {
  const visitor = browser(app);
  await visitor.post('/login', { body: { subject: 'usr_d' } });
  assert.equal((await visitor.post('/pay')).status, 403);
  for (const authorization of ['Bearerx y', 'Bearers', 'bearer-token x', 'BearerX', 'Basic bearer']) {
    assert.equal((await visitor.post('/pay', { headers: { authorization } })).status, 403, authorization);
  }
  const { token } = (await visitor.get('/csrf')).body;
  assert.equal((await visitor.post('/pay', { headers: { 'x-csrf-token': token } })).status, 200);
});

test('a version that nobody can have seen makes nothing ask', async () => {
  const visitor = browser(app);
  await visitor.post('/login', { body: { subject: 'usr_s' } });
  const token = visitor.jar.get('session');
  const options = { url: authority.url, apiKey: authority.apiKey, audience: 'cloakroom', timeout: 5_000, maxStaleness: 5_000 };
  const own = new Authority({ ...options, logger: listener() });
  made.push(own);
  await own.ready();
  await own.lookup(token);
  const ask = own.transport.ask.bind(own.transport);
  let asked = 0;
  own.transport.ask = (question) => {
    asked += 1;
    return ask(question);
  };
  const at = (ms) => BigInt(Date.now() + ms) << 16n;
  for (const seen of [undefined, 10n ** 20n - 1n, at(3_600_000), at(-60_000), 0n, 7n]) await own.lookup(token, seen);
  assert.equal(asked, 0);
  await own.lookup(token, at(0));
  assert.ok(asked > 0, 'one that a browser may have seen does');
});

test('a trace goes on at the authority: of what a request asks, and of nothing else', async () => {
  const key = await keyPair('key');
  const { stub, application } = await overStub([key]);
  const parent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`;
  const seen = (path) => stub.traces.filter(([url]) => url === path).map(([, trace]) => trace);
  const asked = async (traceparent) => {
    stub.traces.length = 0;
    const visitor = browser(application);
    visitor.jar.set('session', `cks_${Math.random()}`);
    await visitor.get('/me', { headers: traceparent ? { traceparent } : {} });
    return seen('/admin/v1/sessions/verify');
  };
  assert.deepEqual(await asked(parent), [parent]);
  for (const strange of [undefined, parent.toUpperCase(), `${parent}x`, '00']) {
    assert.deepEqual(await asked(strange), [undefined], strange);
  }
  const authorization = `Bearer ${await forge(key)}`;
  const { status } = await browser(application).get('/me', { headers: { authorization, traceparent: parent } });
  assert.equal(status, 200);
  // What was used is told for many requests at once.
  await eventually(() => assert.deepEqual(seen('/admin/v1/sessions/touch'), [undefined]));
});
