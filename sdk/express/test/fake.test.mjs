import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cloakroom, csrf, login, logout, requireAuth, requireClaim, requireRecentAuth } from 'cloakroom-express';
import { browser, caught, express } from './world.mjs';

function application(middleware) {
  const app = express();
  app.use(express.json(), middleware);
  app.get('/me', requireAuth(), (req, res) => res.json(req.user));
  app.get('/admin', requireClaim('role', 'admin'), (req, res) => res.json({}));
  app.get('/recent', requireRecentAuth('1h'), (req, res) => res.json({}));
  app.get('/count', (req, res) => {
    req.session.count = (req.session.count ?? 0) + 1;
    res.json({ count: req.session.count });
  });
  app.get('/csrf', caught(async (req, res) => res.json({ token: await req.csrfToken() })));
  app.post('/change', csrf(), (req, res) => res.json({}));
  app.get('/login/:name', caught(async (req, res) => res.json(await login(req, { subject: req.params.name }))));
  app.get('/logout', caught(async (req, res) => res.json((await logout(req)) ?? {})));
  return app;
}

test('a fake is signed in as whom the test says, without a server', async () => {
  const visitor = browser(application(cloakroom.testing.fake({ subject: 'ada', claims: { role: 'admin' } })));
  assert.deepEqual((await visitor.get('/me')).body, { id: 'ada', role: 'admin' });
  assert.equal((await visitor.get('/admin')).status, 200);
  assert.equal((await visitor.get('/recent')).status, 200);
});

test('a fake refuses as the real one does', async () => {
  const nobody = browser(application(cloakroom.testing.fake()));
  assert.equal((await nobody.get('/me')).body.code, 'credentials_required');
  const long = new Date(Date.now() - 86_400_000);
  const user = browser(application(cloakroom.testing.fake({ subject: 'u', authTime: long })));
  assert.equal((await user.get('/admin')).body.code, 'insufficient_claims');
  assert.equal((await user.get('/recent')).body.code, 'reauthentication_required');
  assert.equal((await user.post('/change')).body.code, 'csrf_failed');
  const { token } = (await user.get('/csrf')).body;
  assert.equal((await user.post('/change', { headers: { 'x-csrf-token': token } })).status, 200);
});

test("a fake's visitor keeps what they had when they sign in", async () => {
  const visitor = browser(application(cloakroom.testing.fake()));
  await visitor.get('/count');
  await visitor.get('/login/bob');
  assert.equal((await visitor.get('/count')).body.count, 2);
});

test('a fake remembers, signs in and signs out', async () => {
  const visitor = browser(application(cloakroom.testing.fake({ subject: 'ada', data: { count: 4 } })));
  assert.equal((await visitor.get('/count')).body.count, 5);
  assert.equal((await visitor.get('/count')).body.count, 6);
  await visitor.get('/login/bob');
  assert.equal((await visitor.get('/me')).body.id, 'bob');
  assert.equal((await visitor.get('/count')).body.count, 1, "what was Ada's isn't Bob's");
  await visitor.get('/logout');
  assert.equal((await visitor.get('/me')).status, 401);
});
