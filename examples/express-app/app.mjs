// A small shop: users in SQLite, their sessions and tokens in Cloakroom.
import {
  cloakroom, csrf, login, logout, logoutEverywhere, problems, rateLimit, requireAuth, requireClaim,
} from 'cloakroom-express';
import express from 'express';
import * as pages from './pages.mjs';
import { Users } from './users.mjs';

const users = new Users(process.env.DATABASE ?? 'shop.sqlite');
const ck = cloakroom({ signInUrl: '/login' }); // CLOAKROOM_URL, CLOAKROOM_API_KEY
await ck.ready();

// Who runs the shop says who its administrator is, and no address that somebody signs up with.
const { ADMIN_EMAIL, ADMIN_PASSWORD } = process.env;
if (ADMIN_EMAIL && ADMIN_PASSWORD) await users.add(ADMIN_EMAIL, ADMIN_PASSWORD, 'admin');

const app = express();
app.use(express.json(), express.urlencoded({ extended: false }));
app.use(ck, csrf());

app.get('/', (req, res) => res.send(pages.home()));

app.post('/sign-up', async (req, res) => {
  const { email, password } = req.body ?? {};
  if (!email || !password) return res.status(400).json({ error: 'Email and password required' });
  const user = await users.add(String(email), String(password));
  if (!user) return res.status(409).json({ error: 'Email already registered' });
  res.status(201).json(user);
});

// ---- signing in and out ----

app.get('/login', async (req, res) => {
  res.send(pages.login({ csrfToken: await req.csrfToken(), returnTo: req.query.return_to }));
});

app.post('/login', async (req, res) => {
  const { email, password, return_to: returnTo } = req.body ?? {};
  // A "sign out everywhere" while the password is checked wins.
  const epoch = await ck.epochOf(users.idOf(String(email)) ?? 'nobody');
  const user = await users.check(String(email), String(password));
  const isForm = req.is('urlencoded');
  if (!user) {
    const error = 'Invalid credentials';
    if (!isForm) return res.status(401).json({ error });
    return res.status(401).send(pages.login({ csrfToken: await req.csrfToken(), returnTo, error }));
  }
  const { id: subject, ...claims } = user;
  if (isForm) {
    await login(req, { subject, claims, epoch, amr: ['pwd'] });
    return res.redirect(303, localPath(returnTo) ?? '/account');
  }
  res.json(tokens(await login(req, { subject, claims, epoch, amr: ['pwd'], delivery: 'bearer' })));
});

app.post(['/refresh', '/api/auth/refresh'], async (req, res) => {
  const { refresh_token: refreshToken } = req.body ?? {};
  if (!refreshToken) return res.status(400).json({ error: 'Refresh token required' });
  res.json(tokens(await ck.refresh(String(refreshToken))));
});

app.post('/logout', async (req, res) => {
  await logout(req);
  res.redirect(303, '/');
});

app.post('/api/auth/logout', requireAuth(), async (req, res) => {
  await logout(req);
  res.status(204).end();
});

app.post('/api/auth/logout-everywhere', requireAuth(), async (req, res) => {
  res.json({ revoked: await logoutEverywhere(req) });
});

app.get('/csrf-token', async (req, res) => res.json({ csrf_token: await req.csrfToken() }));

// ---- what needs a sign-in ----

app.get('/account', requireAuth(), async (req, res) => {
  res.send(pages.account({ csrfToken: await req.csrfToken(), email: req.user.email }));
});

app.get('/api/me', requireAuth(), (req, res) => {
  const { id, email, role } = req.user;
  res.json({ id, email, role });
});

app.get('/api/admin', requireClaim('role', 'admin'), (req, res) => res.json({ ok: true }));

app.get('/api/limited', requireAuth(), rateLimit({ limit: 5, window: '1m' }), (req, res) => {
  res.json({ ok: true });
});

// ---- what every visitor has ----

app.get('/api/cart', (req, res) => res.json({ cart: req.session.cart ?? {} }));

app.post('/api/cart', (req, res) => {
  const { item, quantity } = req.body ?? {};
  const cart = { ...req.session.cart, [String(item)]: Number(quantity) };
  if (!(quantity > 0)) delete cart[String(item)];
  req.session.cart = cart;
  res.json({ cart });
});

app.use(problems());

function tokens({ access_token, refresh_token, expires_in, token_type }) {
  return { access_token, refresh_token, expires_in, token_type };
}

/** A path of this site, and not one that browsers take for another host. */
function localPath(path) {
  return /^\/(?![/\\])[^\s\\]*$/.test(path ?? '') ? path : undefined;
}

const port = Number(process.env.PORT ?? 3000);
app.listen(port, '127.0.0.1', () => console.log(`http://127.0.0.1:${port}`));
