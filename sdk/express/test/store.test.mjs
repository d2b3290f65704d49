import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import session from 'express-session';
import { CloakroomStore } from 'cloakroom-express';
import { eventually, pause } from './authority.mjs';
import { browser, caught, express, startAuthority } from './world.mjs';

let authority;
let store;
const made = [];

function newStore(options = {}) {
  const one = new CloakroomStore({ url: authority.url, apiKey: authority.apiKey, ...options });
  made.push(one);
  return one;
}

before(async () => {
  authority = await startAuthority();
  store = newStore();
  await store.ready();
});

after(async () => {
  for (const one of made) one.close();
  await authority.close();
});

const called = (work) => new Promise((resolve, reject) => {
  work((fault, value) => (fault ? reject(fault) : resolve(value)));
});
const lived = (more = {}) => ({ cookie: { originalMaxAge: 60_000, expires: new Date(Date.now() + 60_000) }, ...more });

test('what is set is got, by promise', async () => {
  assert.equal(await store.get('missing'), null);
  await store.set('one', lived({ user: 'ada' }));
  const got = await store.get('one');
  assert.equal(got.user, 'ada');
  assert.equal(got.cookie.originalMaxAge, 60_000);
  await store.destroy('one');
  assert.equal(await store.get('one'), null);
});

test('what is set is got, by callback', async () => {
  assert.equal(await called((done) => store.get('absent', done)), null);
  assert.equal(await called((done) => store.set('two', lived({ a: [1, null] }), done)), undefined);
  assert.deepEqual((await called((done) => store.get('two', done))).a, [1, null]);
  await called((done) => store.touch('two', lived(), done));
  await called((done) => store.destroy('two', done));
  assert.equal(await called((done) => store.get('two', done)), null);
});

test('b4 a set after the destroy brings nothing back', async () => {
  await store.set('late', lived({ a: 1 }));
  const held = await store.get('late');
  await store.destroy('late');
  const before = store.lateSaves;
  held.a = 2;
  await store.set('late', held);
  await store.set('late', lived({ a: 3 }));
  assert.equal(await store.get('late'), null);
  assert.equal(store.lateSaves, before + 2);
  assert.equal(await newStore().get('late'), null);
});

test('destroying what never was is fine', async () => {
  await store.destroy('never');
});

test('a session that has expired is gone', async () => {
  await store.set('gone', { cookie: { expires: new Date(Date.now() - 1_000) }, a: 1 });
  assert.equal(await store.get('gone'), null);
  await store.set('soon', { cookie: { expires: new Date(Date.now() + 1_000) }, a: 1 });
  assert.equal((await store.get('soon')).a, 1);
  await pause(1_100);
  assert.equal(await store.get('soon'), null);
});

test('ttl is a number or a function of the session', async () => {
  const numbered = newStore({ prefix: 'n:', ttl: 1 });
  await numbered.set('x', { cookie: {}, a: 1 });
  const reckoned = newStore({ prefix: 'f:', ttl: (data) => data.lives });
  await reckoned.set('x', { cookie: {}, lives: 1 });
  await reckoned.set('y', { cookie: {}, lives: 60 });
  await pause(1_100);
  assert.equal(await numbered.get('x'), null);
  assert.equal(await reckoned.get('x'), null);
  assert.equal((await reckoned.get('y')).lives, 60);
});

test('a touch makes a session live longer, unless that is disabled', async () => {
  const quiet = newStore({ prefix: 'q:', ttl: 3, disableTouch: true });
  const lively = newStore({ prefix: 't:', ttl: 3 });
  for (const one of [quiet, lively]) await one.set('x', { cookie: {}, a: 1 });
  for (let at = 0; at < 10; at += 1) {
    await pause(500);
    for (const one of [quiet, lively]) await one.touch('x', { cookie: {} });
  }
  assert.equal(await quiet.get('x'), null);
  assert.equal((await lively.get('x')).a, 1);
});

test('a prefix keeps applications apart', async () => {
  const [one, two] = [newStore({ prefix: 'a:' }), newStore({ prefix: 'b:' })];
  await one.set('same', lived({ whose: 'a' }));
  assert.equal(await two.get('same'), null);
});

test('two that change different keys of one session lose nothing', async () => {
  const [here, there] = [newStore(), newStore()];
  await here.set('shared', lived({ a: 1, b: 1, nested: { x: 1 } }));
  const [one, two] = [await here.get('shared'), await there.get('shared')];
  Object.assign(one, { a: 2, mine: null });
  one.nested.y = 2;
  delete two.b;
  two.nested.z = 3;
  await Promise.all([here.set('shared', one), there.set('shared', two)]);
  const { cookie, ...rest } = await newStore().get('shared');
  assert.deepEqual(rest, { a: 2, mine: null, nested: { x: 1, y: 2, z: 3 } });
});

test('what does not fit is an error that names the member', async () => {
  await assert.rejects(store.set('big', lived({ blob: 'x'.repeat(20_000) })), (fault) => {
    assert.equal(fault.code, 'body_too_large');
    assert.equal(fault.status, 413);
    assert.match(fault.message, /blob/);
    return true;
  });
});

test('one session read twice is two objects', async () => {
  await store.set('copy', lived({ list: [1] }));
  const [one, two] = [await store.get('copy'), await store.get('copy')];
  one.list.push(2);
  assert.deepEqual(two.list, [1]);
});

test('load makes a session that can be saved', async () => {
  await store.set('loaded', lived({ a: 1 }));
  const loaded = await called((done) => store.load('loaded', done));
  assert.equal(loaded.a, 1);
  assert.equal(loaded.cookie.originalMaxAge, 60_000);
  loaded.a = 2;
  await called((done) => loaded.save(done));
  assert.equal((await store.get('loaded')).a, 2);
  assert.equal(await called((done) => store.load('nobody', done)), undefined);
});

function application(options = {}, own = store) {
  const app = express();
  app.use(session({ secret: 'keyboard cat', resave: false, saveUninitialized: false, store: own, ...options }));
  app.get('/', (req, res) => {
    const { cookie, ...data } = req.session;
    res.json({ id: req.sessionID, data, isNew: Object.keys(data).length === 0 });
  });
  app.get('/set/:key/:value', (req, res) => {
    req.session[req.params.key] = req.params.value;
    res.json({ id: req.sessionID });
  });
  app.get('/regenerate', (req, res, next) => {
    req.session.regenerate((fault) => {
      if (fault) return next(fault);
      req.session.fresh = 'yes';
      res.json({ id: req.sessionID });
    });
  });
  app.get('/destroy', (req, res, next) => req.session.destroy((fault) => (fault ? next(fault) : res.json({}))));
  app.get('/reload', (req, res, next) => {
    req.session.unsaved = 1;
    req.session.reload((fault) => {
      if (fault) return next(fault);
      res.json({ unsaved: req.session.unsaved, kept: req.session.a });
    });
  });
  app.get('/save-then-wait', caught(async (req, res) => {
    req.session.slow = 1;
    await pause(150);
    res.json({});
  }));
  app.use((fault, req, res, next) => res.status(fault.status ?? 500).json({ code: fault.code }));
  return app;
}

test('express-session works as with any store', async () => {
  const visitor = browser(application());
  assert.equal((await visitor.get('/')).headers['set-cookie'], undefined);
  const { body: first } = await visitor.get('/set/a/1');
  assert.ok(visitor.jar.has('connect.sid'));
  assert.deepEqual((await visitor.get('/')).body, { id: first.id, data: { a: '1' }, isNew: false });
  assert.deepEqual((await visitor.get('/reload')).body, { kept: '1' });
  const { body: second } = await visitor.get('/regenerate');
  assert.notEqual(second.id, first.id);
  assert.deepEqual((await visitor.get('/')).body.data, { fresh: 'yes' });
  assert.equal(await store.get(first.id), null);
  await visitor.get('/destroy');
  assert.equal((await visitor.get('/')).body.isNew, true);
});

test('a rolling cookie and resave work', async () => {
  const visitor = browser(application({ rolling: true, resave: true, cookie: { maxAge: 60_000 } }));
  await visitor.get('/set/a/1');
  const again = await visitor.get('/');
  assert.match(again.headers['set-cookie'][0], /Expires=/);
  assert.deepEqual(again.body.data, { a: '1' });
});

test('b4 a request that was running when its session was destroyed revives nothing', async () => {
  const app = application();
  const visitor = browser(app);
  await visitor.get('/set/a/1');
  const late = browser(app);
  late.jar.set('connect.sid', visitor.jar.get('connect.sid'));
  const slow = late.get('/save-then-wait');
  await pause(50);
  await visitor.get('/destroy');
  assert.equal((await slow).status, 200);
  late.jar.set('connect.sid', visitor.jar.get('connect.sid') ?? '');
  assert.equal((await late.get('/')).body.isNew, true);
});

test('concurrent requests of one browser that set different keys lose nothing', async () => {
  const visitor = browser(application());
  await visitor.get('/set/first/1');
  await Promise.all(['a', 'b', 'c', 'd', 'e'].map((key) => visitor.get(`/set/${key}/1`)));
  const { body } = await visitor.get('/');
  assert.deepEqual(Object.keys(body.data).sort(), ['a', 'b', 'c', 'd', 'e', 'first']);
});

test('with `subject` the operator sees whose sessions they are, and ends them', async () => {
  const own = newStore({ prefix: 's:', subject: (data) => data.user });
  const visitor = browser(application({}, own));
  await visitor.get('/set/cart/full');
  await visitor.get('/set/user/grace');
  assert.deepEqual((await visitor.get('/')).body.data, { cart: 'full', user: 'grace' });
  const { body } = await authority.admin('GET', '/subjects/grace/sessions');
  assert.equal(body.sessions.length, 1);
  await authority.admin('DELETE', '/subjects/grace/sessions');
  await eventually(async () => assert.equal((await visitor.get('/')).body.isNew, true), 2_000);
});
