// The applications that `cargo xtask bench backends` measures: one protected route, with
// cloakroom-express, with nothing, and with what Express's users have otherwise.
//
//     node bench/apps.mjs KIND PORT [REDIS_PORT]
import { randomUUID } from 'node:crypto';
import { cloakroom, login, requireAuth } from 'cloakroom-express';
import { RedisStore } from 'connect-redis';
import express from 'express';
import session from 'express-session';
import jwt from 'jsonwebtoken';
import { createClient } from 'redis';

const SECRET = 'a secret of 32 bytes at least, for this benchmark alone';
const CART = { apple: 2 };
const [kind, port, redisPort] = process.argv.slice(2);

const kinds = {
  bare(app) {
    app.get('/me', (req, res) => res.json({ id: 'ada' }));
  },

  async cloakroom(app) {
    const ck = cloakroom(); // CLOAKROOM_URL, CLOAKROOM_API_KEY
    await ck.ready();
    app.use(ck);
    app.get('/login', async (req, res) => {
      await login(req, { subject: req.query.user, data: { cart: CART } });
      res.json({});
    });
    app.get('/tokens', async (req, res) => {
      res.json(await login(req, { subject: req.query.user, delivery: 'bearer' }));
    });
    app.get('/me', requireAuth(), (req, res) => res.json({ id: req.user.id }));
    app.get('/cart', requireAuth(), (req, res) => res.json({ id: req.user.id, cart: req.session.cart }));
  },

  async 'express-session'(app) {
    const store = new RedisStore({ client: await redis() });
    app.use(session({ store, secret: SECRET, resave: false, saveUninitialized: false }));
    app.get('/login', (req, res) => {
      req.session.userId = req.query.user;
      req.session.cart = CART;
      res.json({});
    });
    const signedIn = (req, res, next) => (req.session.userId ? next() : res.sendStatus(401));
    app.get('/me', signedIn, (req, res) => res.json({ id: req.session.userId }));
    app.get('/cart', signedIn, (req, res) => res.json({ id: req.session.userId, cart: req.session.cart }));
  },

  async jsonwebtoken(app) {
    const blacklist = await redis();
    app.get('/tokens', (req, res) => {
      const options = { algorithm: 'HS256', expiresIn: '15m', subject: req.query.user, jwtid: randomUUID() };
      res.json({ access_token: jwt.sign({}, SECRET, options) });
    });
    const signedIn = async (req, res, next) => {
      try {
        req.user = jwt.verify(req.get('authorization')?.slice('Bearer '.length), SECRET, { algorithms: ['HS256'] });
      } catch {
        return res.sendStatus(401);
      }
      if (await blacklist.get(`blacklist:${req.user.jti}`)) return res.sendStatus(401);
      next();
    };
    app.get('/me', signedIn, (req, res) => res.json({ id: req.user.sub }));
  },
};

function redis() {
  return createClient({ url: `redis://127.0.0.1:${redisPort}` }).connect();
}

const app = express();
await kinds[kind](app);
app.listen(Number(port), '127.0.0.1');
