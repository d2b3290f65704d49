// Door 2: the request has what the middleware puts on it.
import 'cloakroom-express/augment';
import {
  cloakroom, csrf, login, logout, logoutEverywhere, problems, rateLimit, requireAuth, requireClaim,
  requireRecentAuth, CloakroomError, type LoginResult,
} from 'cloakroom-express';
import express from 'express';

const ck = cloakroom({ url: 'http://127.0.0.1:7401', apiKey: 'cka_x', timeout: '1s' });
const app = express();
app.use(express.json(), ck, rateLimit({ limit: 10, window: '1m' }), csrf());
app.post('/login', async (req, res) => {
  const result: LoginResult = await login(req, { subject: '7', claims: { role: 'user' }, maxAge: '30d' });
  res.json(result);
});
app.get('/me', requireAuth(), requireRecentAuth('5m'), async (req, res) => {
  req.session.cart = { apple: 1 };
  await req.session.save();
  const until: Date | null = req.session.cookie.expires;
  res.json({ user: req.user?.id, role: req.auth?.claims['role'], until, token: await req.csrfToken() });
});
app.post('/out', requireClaim('role', 'admin'), async (req, res) => {
  await logout(req);
  const revoked: number = await logoutEverywhere(req);
  res.json({ revoked, tokens: await ck.refresh('x') });
});
app.use(problems());
app.use(cloakroom.testing.fake({ subject: 'ada', claims: { role: 'admin' } }));
export const code: string = new CloakroomError({ code: 'x', status: 400, detail: 'y' }).code;
