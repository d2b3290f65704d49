// docs/guide/from-express-session.md, done with the libraries that people come from.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { CloakroomStore, cloakroom, problems, requireAuth, logout } from 'cloakroom-express';
import { RedisStore } from 'connect-redis';
import session from 'express-session';
import jwt from 'jsonwebtoken';
import { createClient } from 'redis';
import { browser, caught, express, startAuthority } from './world.mjs';
import { hasRedis, startRedis } from './redis.mjs';

const skip = hasRedis() ? false : 'no redis-server';
const JWT_SECRET = 'the secret of the old days, long enough';
let authority;
let redis;
let client;
const made = [];

before(async () => {
  authority = await startAuthority();
  process.env.CLOAKROOM_URL = authority.url;
  process.env.CLOAKROOM_API_KEY = authority.apiKey;
  if (skip) return;
  redis = await startRedis();
  client = createClient({ url: redis.url });
  await client.connect();
});

after(async () => {
  for (const one of made) one.close();
  await client?.quit();
  await redis?.close();
  await authority.close();
});

const secret = 'keyboard cat';
const keys = () => client.keys('sess:*');

function shop(sessions) {
  const app = express();
  app.use(sessions);
  app.get('/sign-in/:name', (req, res, next) => {
    req.session.regenerate((fault) => {
      if (fault) return next(fault);
      req.session.user = req.params.name;
      req.session.cart = ['apple'];
      res.json({});
    });
  });
  app.get('/me', (req, res) => res.json({ user: req.session.user ?? null, cart: req.session.cart ?? null }));
  app.get('/add/:item', (req, res) => {
    req.session.cart = [...(req.session.cart ?? []), req.params.item];
    res.json({});
  });
  app.get('/sign-out', (req, res, next) => req.session.destroy((fault) => (fault ? next(fault) : res.json({}))));
  return app;
}

// Before: express-session and connect-redis.
const old = () => shop(session({ secret, resave: false, saveUninitialized: false, store: new RedisStore({ client }) }));

// After: the same, with another store.
function moved() {
  const store = new CloakroomStore({
    subject: (data) => data.user,
    fallback: new RedisStore({ client }),
  });
  made.push(store);
  return shop(session({ secret, resave: false, saveUninitialized: false, store }));
}

test('nobody is signed out: a session moves with its first request, under its old cookie', { skip }, async () => {
  const visitor = browser(old());
  await visitor.get('/sign-in/ada');
  const cookie = visitor.jar.get('connect.sid');
  assert.equal((await keys()).length, 1);
  const after = browser(moved());
  after.jar.set('connect.sid', cookie);
  assert.deepEqual((await after.get('/me')).body, { user: 'ada', cart: ['apple'] });
  assert.deepEqual(await keys(), [], 'retired');
  await after.get('/add/pear');
  assert.deepEqual((await after.get('/me')).body, { user: 'ada', cart: ['apple', 'pear'] });
  const { body } = await authority.admin('GET', '/subjects/ada/sessions');
  assert.equal(body.sessions.length, 1);
});

test('a session that was moved and ended comes back from nowhere', { skip }, async () => {
  const visitor = browser(old());
  await visitor.get('/sign-in/bob');
  const cookie = visitor.jar.get('connect.sid');
  const [key] = await keys();
  const kept = await client.get(key);
  const after = browser(moved());
  after.jar.set('connect.sid', cookie);
  await after.get('/me');
  await after.get('/sign-out');
  // As if an old process had written it once more.
  await client.set(key, kept);
  for (const app of [moved(), moved()]) {
    const late = browser(app);
    late.jar.set('connect.sid', cookie);
    assert.deepEqual((await late.get('/me')).body, { user: null, cart: null });
  }
  await client.del(key);
});

test('many first requests at once, in two processes, move one session once', { skip }, async () => {
  const visitor = browser(old());
  await visitor.get('/sign-in/eve');
  const apps = [moved(), moved()];
  const answers = await Promise.all(Array.from({ length: 8 }, (_, at) => {
    const one = browser(apps[at % 2]);
    one.jar.set('connect.sid', visitor.jar.get('connect.sid'));
    return one.get('/me');
  }));
  for (const { body } of answers) assert.deepEqual(body, { user: 'eve', cart: ['apple'] });
  assert.equal((await authority.admin('GET', '/subjects/eve/sessions')).body.sessions.length, 1);
});

test('who never had a session has none after', { skip }, async () => {
  const visitor = browser(moved());
  visitor.jar.set('connect.sid', 's%3Aforged.signature');
  assert.deepEqual((await visitor.get('/me')).body, { user: null, cart: null });
});

function api() {
  const ck = cloakroom({
    legacyTokens: (token, kind) => {
      const { sub, email, role, type, iat, exp } = jwt.verify(token, JWT_SECRET, { algorithms: ['HS256'] });
      if (type !== kind) return undefined;
      return { subject: sub, claims: { email, role }, issuedAt: iat, expiresAt: exp };
    },
  });
  made.push(ck);
  const app = express();
  app.use(express.json(), ck);
  app.get('/me', requireAuth(), (req, res) => res.json(req.user));
  app.post('/refresh', caught(async (req, res) => {
    const { refresh_token: token } = req.body;
    res.json(token.startsWith('ckr_') ? await ck.refresh(token) : await ck.exchange(req, token));
  }));
  app.post('/logout', requireAuth(), caught(async (req, res) => {
    await logout(req);
    res.status(204).end();
  }));
  app.use(problems());
  return app;
}

const issue = (sub, type, expiresIn = '1h') => {
  const claims = { sub, email: `${sub}@example.com`, role: 'user', type, jti: Math.random().toString(36) };
  return jwt.sign(claims, JWT_SECRET, { expiresIn });
};
const bearer = (token) => ({ headers: { authorization: `Bearer ${token}` } });

test('a token of jsonwebtoken is good until it expires, and can be signed out at last', async () => {
  const app = api();
  const token = issue('jan', 'access');
  const visitor = browser(app);
  assert.deepEqual((await visitor.get('/me', bearer(token))).body, { id: 'jan', email: 'jan@example.com', role: 'user' });
  assert.equal((await authority.admin('GET', '/subjects/jan/sessions')).body.sessions.length, 1);
  assert.equal((await visitor.post('/logout', bearer(token))).status, 204);
  assert.equal((await visitor.get('/me', bearer(token))).body.code, 'session_ended');
  assert.equal((await browser(api()).get('/me', bearer(token))).body.code, 'session_ended');
});

test('sign out everywhere reaches old tokens too', async () => {
  const token = issue('kim', 'access');
  assert.equal((await browser(api()).get('/me', bearer(token))).status, 200);
  await authority.admin('DELETE', '/subjects/kim/sessions');
  assert.equal((await browser(api()).get('/me', bearer(token))).body.code, 'session_ended');
});

test('old tokens that are expired, forged, or of the other kind are none', async () => {
  const visitor = browser(api());
  const forged = jwt.sign({ sub: 'root', type: 'access' }, 'another secret', { expiresIn: '1h' });
  const expired = issue('x', 'access', '-1s');
  for (const token of [forged, expired, issue('x', 'refresh')]) {
    assert.equal((await visitor.get('/me', bearer(token))).status, 401);
  }
});

test('an old refresh token is exchanged, for as long as an answer may be lost, and then never again', async () => {
  const visitor = browser(api());
  const token = issue('lee', 'refresh');
  const { body } = await visitor.post('/refresh', { body: { refresh_token: token } });
  assert.equal(body.token_type, 'Bearer');
  assert.deepEqual((await visitor.get('/me', bearer(body.access_token))).body.id, 'lee');
  const next = await visitor.post('/refresh', { body: { refresh_token: body.refresh_token } });
  assert.equal(next.status, 200);
  assert.equal((await visitor.post('/refresh', { body: { refresh_token: token } })).status, 200);
  const access = issue('lee', 'access');
  assert.equal((await visitor.post('/refresh', { body: { refresh_token: access } })).body.code, 'token_invalid');
});

test("the guide's code is what is tested here", () => {
  const guide = new URL('../../../../docs/guide/from-express-session.md', import.meta.url);
  assert.ok(existsSync(guide), 'the guide is there');
  const here = readFileSync(new URL(import.meta.url), 'utf8').replace(/\s+/g, ' ');
  const blocks = readFileSync(guide, 'utf8').match(/```js\n[^]*?```/g) ?? [];
  assert.ok(blocks.length >= 3);
  const lines = blocks.flatMap((block) => block.split('\n').slice(1, -1)).map((line) => line.trim());
  for (const line of lines.filter((one) => one !== '' && !/^(import|\/\/)/.test(one))) {
    assert.ok(here.includes(line.replace(/\s+/g, ' ')), `not tested: ${line}`);
  }
});
