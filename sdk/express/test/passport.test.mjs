import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import session from 'express-session';
import passport from 'passport';
import { Strategy } from 'passport-local';
import { cloakroom, CloakroomStore } from 'cloakroom-express';
import { eventually } from './authority.mjs';
import { browser, express, startAuthority } from './world.mjs';

const USERS = [{ id: 7, username: 'ada', password: 'pw' }, { id: 8, username: 'bob', password: 'pw' }];
let authority;
const made = [];

before(async () => {
  authority = await startAuthority();
});

after(async () => {
  for (const one of made) one.close();
  await authority.close();
});

// An application as Passport's own guide has it; nothing in it knows of Cloakroom.
function application(door) {
  const own = new passport.Passport();
  own.use(new Strategy((username, password, done) => {
    const user = USERS.find((one) => one.username === username && one.password === password);
    done(null, user ?? false);
  }));
  own.serializeUser((user, done) => done(null, user.id));
  own.deserializeUser((id, done) => done(null, USERS.find((user) => user.id === id) ?? false));
  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.use(door);
  app.use(own.session());
  app.post('/login', own.authenticate('local'), (req, res) => res.json({ name: req.user.username }));
  app.post('/logout', (req, res, next) => req.logout((fault) => (fault ? next(fault) : res.json({}))));
  app.get('/me', (req, res) => {
    if (!req.isAuthenticated()) return res.status(401).json({});
    res.json({ name: req.user.username, cart: req.session.cart });
  });
  app.get('/cart', (req, res) => {
    req.session.cart = 'full';
    res.json({});
  });
  return app;
}

const connection = () => ({ url: authority.url, apiKey: authority.apiKey, subject: (data) => data.passport?.user });

for (const [name, cookie, door] of [
  ['the middleware', 'session', () => keep(cloakroom(connection()))],
  ['express-session with the store', 'connect.sid', () => {
    const store = keep(new CloakroomStore(connection()));
    return session({ secret: 's', resave: false, saveUninitialized: false, store });
  }],
]) {
  test(`Passport, unchanged, over ${name}`, async () => {
    const app = application(door());
    const visitor = browser(app);
    await visitor.get('/cart');
    const before = visitor.jar.get(cookie);
    assert.ok(before);
    assert.equal((await visitor.post('/login', { form: { username: 'ada', password: 'no' } })).status, 401);
    assert.deepEqual((await visitor.post('/login', { form: { username: 'ada', password: 'pw' } })).body, { name: 'ada' });
    const signedIn = visitor.jar.get(cookie);
    assert.notEqual(signedIn, before, 'a new id at the sign-in');
    assert.deepEqual((await visitor.get('/me')).body, { name: 'ada' });
    const { body } = await authority.admin('GET', '/subjects/7/sessions');
    assert.equal(body.sessions.length, 1, 'the operator sees whose it is');
    await visitor.post('/logout');
    assert.equal((await visitor.get('/me')).status, 401);
    visitor.jar.set(cookie, signedIn);
    assert.equal((await visitor.get('/me')).status, 401, 'the former cookie is dead');
    visitor.jar.set(cookie, before);
    assert.equal((await visitor.get('/me')).status, 401);
  });

  test(`Passport over ${name}: signed out everywhere, from outside`, async () => {
    const app = application(door());
    const [one, two] = [browser(app), browser(app)];
    for (const visitor of [one, two]) await visitor.post('/login', { form: { username: 'bob', password: 'pw' } });
    assert.equal((await one.get('/me')).status, 200);
    assert.equal((await authority.admin('DELETE', '/subjects/8/sessions')).body.revoked, 2);
    for (const visitor of [one, two]) {
      await eventually(async () => assert.equal((await visitor.get('/me')).status, 401), 2_000);
    }
  });
}

function keep(one) {
  made.push(one);
  return one;
}
