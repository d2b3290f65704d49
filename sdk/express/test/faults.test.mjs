import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import http from 'node:http';
import net from 'node:net';
import { after, before, test } from 'node:test';
import session from 'express-session';
import { cloakroom, CloakroomStore, login, problems, requireAuth } from 'cloakroom-express';
import { eventually, pause } from './authority.mjs';
import { browser, caught, express, listener, startAuthority } from './world.mjs';

let authority;
const made = [];

before(async () => {
  authority = await startAuthority();
});

after(async () => {
  for (const one of made) one.close();
  await authority.close();
});

async function world(options = {}) {
  const log = listener();
  const ck = cloakroom({ url: authority.url, apiKey: authority.apiKey, logger: log, ...options });
  made.push(ck);
  const app = express();
  app.use(ck);
  app.get('/login/:name', caught(async (req, res) => res.json(await login(req, { subject: req.params.name }))));
  app.get('/bearer/:name', caught(async (req, res) => {
    res.json(await login(req, { subject: req.params.name, delivery: 'bearer' }));
  }));
  app.get('/me', requireAuth(), (req, res) => res.json({ id: req.user.id }));
  app.get('/open', (req, res) => res.json({ ok: true }));
  app.get('/set/:key', (req, res) => {
    req.session[req.params.key] = 1;
    res.json({ done: true });
  });
  app.get('/data', (req, res) => res.json({ ...req.session }));
  app.use(problems());
  return { app, ck, log };
}

async function signIn(visitor, name) {
  const answer = await visitor.get(`/login/${name}`);
  assert.equal(answer.status, 200, answer.text);
  return answer;
}

test('authority down: 503, the cookie stays, one line in the log, and all is well again after', async () => {
  const { app, ck, log } = await world();
  await ck.ready();
  const visitor = browser(app);
  await signIn(visitor, 'ada');
  await visitor.get('/set/before');
  const cookie = visitor.jar.get('session');
  await authority.stop();
  await eventually(async () => assert.equal((await visitor.get('/me')).status, 503), 10_000);
  for (let at = 0; at < 20; at += 1) {
    const answer = await visitor.get('/me');
    assert.deepEqual([answer.status, answer.body.code], [503, 'authority_unreachable']);
    assert.equal(answer.headers['retry-after'], '1');
    assert.equal(answer.headers['set-cookie'], undefined);
  }
  assert.equal((await browser(app).get('/open')).status, 200);
  assert.equal(log.lines.filter((line) => line.includes("can't be reached")).length, 1, log.lines.join('\n'));
  await authority.start();
  await eventually(async () => {
    const answer = await visitor.get('/me');
    assert.equal(answer.status, 200, answer.text);
  }, 15_000);
  assert.equal(visitor.jar.get('session'), cookie);
  assert.deepEqual((await visitor.get('/data')).body, { before: 1 });
  await eventually(async () => assert.ok(ck.lateSaves === 0 && log.lines.some((line) => /is back/.test(line))));
});

test('while it is down it is asked seldom, and answers come at once', async () => {
  let attempts = 0;
  const broken = net.createServer((socket) => {
    attempts += 1;
    socket.destroy();
  });
  await new Promise((resolve) => broken.listen(0, '127.0.0.1', resolve));
  const { app } = await world({ url: `http://127.0.0.1:${broken.address().port}` });
  const visitor = browser(app);
  visitor.jar.set('session', 'cks_x');
  const began = performance.now();
  for (let at = 0; at < 100; at += 1) assert.equal((await visitor.get('/me')).status, 503);
  const seconds = (performance.now() - began) / 1000;
  assert.ok(attempts <= 10 + 3 * seconds, `${attempts} attempts in ${seconds} s`);
  broken.close();
});

test('uses that no lookup saw are reported together', async () => {
  const proxy = await proxied(authority.url, () => false);
  const { app, ck } = await world({ url: proxy.url, timeout: 2_000 });
  await ck.ready();
  const tokens = [(await browser(app).get('/bearer/u1')).body, (await browser(app).get('/bearer/u2')).body];
  for (const { access_token } of [...tokens, ...tokens]) {
    await browser(app).get('/me', { headers: { authorization: `Bearer ${access_token}` } });
  }
  const sids = tokens.map(({ sid }) => sid);
  await eventually(async () => assert.deepEqual(proxy.touched.flat().sort(), sids.sort()));
  proxy.close();
});

test('a save that fails is no success: the handler\'s answer is not sent', async () => {
  const { app, ck } = await world();
  await ck.ready();
  const visitor = browser(app);
  await signIn(visitor, 'failing');
  await visitor.get('/me');
  await authority.freeze();
  const answer = await visitor.get('/set/lost');
  authority.thaw();
  assert.deepEqual([answer.status, answer.body.code, answer.body.done], [503, 'authority_unreachable', undefined]);
});

test('authority slow: the deadline holds, and a known session is served within the bound', async () => {
  const { app, ck } = await world({ timeout: 1_000 });
  await ck.ready();
  const visitor = browser(app);
  await signIn(visitor, 'slow');
  await pause(100);
  assert.equal((await visitor.get('/me')).status, 200);
  await authority.freeze();
  const known = await visitor.get('/me');
  const stranger = browser(app);
  stranger.jar.set('session', 'cks_unknown');
  const began = performance.now();
  const unknown = await stranger.get('/me');
  const took = performance.now() - began;
  await pause(2_100);
  const stale = await visitor.get('/me');
  authority.thaw();
  assert.equal(known.status, 200);
  assert.equal(unknown.status, 503);
  assert.ok(took >= 900 && took < 4_000, `${took} ms`);
  assert.equal(stale.status, 503);
  await eventually(async () => assert.equal((await visitor.get('/me')).status, 200), 15_000);
});

test('authority restarted: an ending while the feed was lost is known when it is back', async () => {
  const { app, ck } = await world();
  await ck.ready();
  const [one, two] = [browser(app), browser(app)];
  const { body } = await signIn(one, 'gone');
  await signIn(two, 'stays');
  const tokens = (await browser(app).get('/bearer/gone')).body;
  assert.equal((await one.get('/me')).status, 200);
  const headers = { authorization: `Bearer ${tokens.access_token}` };
  assert.equal((await browser(app).get('/me', { headers })).status, 200);
  await authority.stop('SIGTERM');
  await authority.start();
  await authority.admin('DELETE', `/sessions/${body.sid}`);
  await authority.admin('DELETE', `/sessions/${tokens.sid}`);
  await eventually(async () => assert.equal((await one.get('/me')).status, 401), 15_000);
  await eventually(async () => assert.equal((await browser(app).get('/me', { headers })).status, 401), 15_000);
  await eventually(async () => assert.equal((await two.get('/me')).status, 200), 15_000);
});

test('a store that was lost: the feed begins anew, and what was known is forgotten', async () => {
  const fleeting = await startAuthority({ env: { CLOAKROOM_STORE__URL: 'memory:' } });
  const { app, ck } = await world({ url: fleeting.url, apiKey: fleeting.apiKey });
  await ck.ready();
  const visitor = browser(app);
  await signIn(visitor, 'lost');
  assert.equal((await visitor.get('/me')).status, 200);
  await fleeting.stop();
  await fleeting.start();
  await eventually(async () => assert.equal((await visitor.get('/me')).status, 401), 15_000);
  const again = browser(app);
  await signIn(again, 'lost');
  assert.equal((await again.get('/me')).status, 200);
  await fleeting.close();
});

test('feed lost: every request asks, and an ending counts at once', async () => {
  const proxy = await feedlessProxy(authority.url);
  const { app, ck, log } = await world({ url: proxy.url, timeout: 2_000 });
  await ck.ready();
  const visitor = browser(app);
  const { body } = await signIn(visitor, 'feedless');
  const tokens = (await browser(app).get('/bearer/feedless')).body;
  const headers = { authorization: `Bearer ${tokens.access_token}` };
  for (let at = 0; at < 3; at += 1) {
    const before = proxy.asked;
    assert.equal((await visitor.get('/me')).status, 200);
    assert.ok(proxy.asked > before);
    assert.equal((await browser(app).get('/me', { headers })).status, 200);
  }
  await authority.admin('DELETE', `/sessions/${body.sid}`);
  await authority.admin('DELETE', `/sessions/${tokens.sid}`);
  assert.equal((await visitor.get('/me')).body.code, 'session_ended');
  assert.equal((await browser(app).get('/me', { headers })).body.code, 'session_ended');
  await eventually(async () => {
    assert.equal(log.lines.filter((line) => line.includes('feed is lost')).length, 1);
  });
  proxy.close();
});

test('wrong API key: told at the start, and nobody is signed out for it', async () => {
  const { app, ck, log } = await world({ apiKey: 'cka_wrong' });
  await assert.rejects(ck.ready(), (fault) => fault.code === 'api_key_refused' && /refuses this API key/.test(fault.message));
  assert.equal(log.lines.filter((line) => line.includes('refuses this API key')).length, 1);
  const good = await world();
  await good.ck.ready();
  const visitor = browser(good.app);
  await signIn(visitor, 'keyed');
  const elsewhere = browser(app);
  elsewhere.jar.set('session', visitor.jar.get('session'));
  const answer = await elsewhere.get('/me');
  assert.deepEqual([answer.status, answer.body.code], [503, 'api_key_refused']);
  assert.equal(answer.headers['set-cookie'], undefined);
});

test('an API key that is deleted while we run signs nobody out either', async () => {
  const created = await authority.admin('POST', '/api-keys', { name: 'x', scopes: ['sessions:read', 'sessions:write'] });
  const { app, ck } = await world({ apiKey: created.body.secret });
  await ck.ready();
  const visitor = browser(app);
  await signIn(visitor, 'rekeyed');
  await authority.admin('DELETE', `/api-keys/${created.body.api_key.id}`);
  await eventually(async () => assert.equal((await visitor.get('/me')).body.code, 'api_key_refused'), 5_000);
  assert.ok(visitor.jar.has('session'));
});

test('a key without the scope is an error of ours, not of the visitor', async () => {
  const created = await authority.admin('POST', '/api-keys', { name: 'r', scopes: ['sessions:read'] });
  const { app, ck } = await world({ apiKey: created.body.secret });
  await ck.ready();
  const answer = await browser(app).get('/login/scoped');
  assert.deepEqual([answer.status, answer.body.code], [503, 'api_key_refused']);
});

test('a program that waits for the authority first goes on, and ends when it is done', async () => {
  const script = `import { cloakroom } from 'cloakroom-express';
    const ck = cloakroom({ url: '${authority.url}', apiKey: '${authority.apiKey}' });
    await ck.ready();
    console.log('ready');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { cwd: import.meta.dirname });
  let said = '';
  child.stdout.on('data', (text) => (said += text));
  const code = await new Promise((resolve) => child.once('exit', resolve));
  assert.deepEqual([code, said], [0, 'ready\n']);
});

test('no key, no url: refused at once', () => {
  assert.throws(() => cloakroom({ url: 'http://127.0.0.1:1' }), /no API key/);
  assert.throws(() => cloakroom({ apiKey: 'x' }), /no url/);
});

test('a clock that is wrong is told once, and every request asks', async () => {
  const proxy = await shiftedProxy(authority.url, 60_000);
  const { app, ck, log } = await world({ url: proxy.url, timeout: 2_000 });
  await ck.ready();
  await eventually(async () => assert.ok(log.lines.some((line) => /clock/.test(line))));
  const visitor = browser(app);
  const { body } = await signIn(visitor, 'clock');
  assert.equal((await visitor.get('/me')).status, 200);
  await authority.admin('DELETE', `/sessions/${body.sid}`);
  assert.equal((await visitor.get('/me')).body.code, 'session_ended');
  assert.equal(log.lines.filter((line) => /clock/.test(line)).length, 1);
  proxy.close();
});

test('express-session with the authority down: 503, the cookie stays', async () => {
  const store = new CloakroomStore({ url: authority.url, apiKey: authority.apiKey, logger: listener() });
  made.push(store);
  const app = express();
  app.use(session({ secret: 's', resave: false, saveUninitialized: false, store }));
  app.get('/set', (req, res) => {
    req.session.a = 1;
    res.json({});
  });
  app.get('/', (req, res) => res.json({ a: req.session.a }));
  app.use(problems());
  const visitor = browser(app);
  await visitor.get('/set');
  assert.equal((await visitor.get('/')).body.a, 1);
  await authority.stop();
  await eventually(async () => assert.equal((await visitor.get('/')).status, 503), 4_000);
  assert.ok(visitor.jar.has('connect.sid'));
  await authority.start();
  await eventually(async () => assert.equal((await visitor.get('/')).body.a, 1), 15_000);
});

/** Passes everything on but the stream. */
function feedlessProxy(target) {
  return proxied(target, (req) => req.url.startsWith('/admin/v1/revocations/stream'));
}

/** Shows the heartbeats of an authority whose clock is behind. */
function shiftedProxy(target, by) {
  const shift = (text) => text.replace(/"at":"([^"]+)"/g, (_, at) => `"at":"${new Date(Date.parse(at) - by).toISOString()}"`);
  return proxied(target, () => false, shift);
}

async function proxied(target, refuses, change = (text) => text) {
  const state = { asked: 0, touched: [] };
  const server = http.createServer((req, res) => {
    if (refuses(req)) return res.writeHead(502).end();
    state.asked += 1;
    const onward = http.request(target + req.url, { method: req.method, headers: { ...req.headers, host: new URL(target).host } });
    onward.on('response', (response) => {
      res.writeHead(response.statusCode, response.headers);
      if (!req.url.includes('/stream')) return response.pipe(res);
      response.setEncoding('utf8');
      response.on('data', (text) => res.write(change(text)));
      response.on('error', () => res.destroy());
    });
    onward.on('error', () => res.destroy());
    res.on('close', () => onward.destroy());
    if (req.url === '/admin/v1/sessions/touch') req.on('data', (body) => state.touched.push(JSON.parse(body).sids));
    req.pipe(onward);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  state.url = `http://127.0.0.1:${server.address().port}`;
  state.close = () => {
    server.closeAllConnections();
    server.close();
  };
  return state;
}
