// What the three example applications have in common, checked from outside. The contract is README.md.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { baseUrl, visitor } from './visitor.mjs';

/** An ending is true for every other request within this time. */
const BOUND = 2_000;
/** Leeway that verifiers give an access token's time. */
const LEEWAY = 5_000;
const PASSWORD = 'correct horse battery staple';
const checks = [];
const check = (name, run) => checks.push({ name, run });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function signedUp(prefix = 'ada') {
  const email = `${prefix}@${randomUUID()}.example`;
  const { status, body } = await visitor().post('/sign-up', { json: { email, password: PASSWORD } });
  assert.equal(status, 201);
  return { ...body, email };
}

async function tokensOf({ email, password = PASSWORD }) {
  const { status, body } = await visitor().post('/login', { json: { email, password } });
  assert.equal(status, 200);
  return body;
}

/** Signs in by the form, as a browser without scripts. */
async function byForm({ email }, client = visitor(), more = {}) {
  const csrf_token = await client.csrf();
  const answer = await client.post('/login', { form: { email, password: PASSWORD, csrf_token, ...more } });
  assert.equal(answer.status, 303, answer.text);
  return { client, answer };
}

async function eventually(run) {
  const until = Date.now() + BOUND;
  for (;;) {
    try {
      return await run();
    } catch (fault) {
      if (Date.now() > until) throw fault;
      await pause(50);
    }
  }
}

function refused(answer, status, code) {
  assert.deepEqual([answer.status, answer.body?.code], [status, code], answer.text);
}

check('sign-up: once for each address, and with both members', async () => {
  const { email, id, role } = await signedUp();
  assert.ok(id);
  assert.equal(role, 'user');
  const again = await visitor().post('/sign-up', { json: { email, password: PASSWORD } });
  assert.deepEqual([again.status, again.body.error], [409, 'Email already registered']);
  for (const json of [{}, { email: 'x@y.example' }, { email: '', password: 'x' }]) {
    const answer = await visitor().post('/sign-up', { json });
    assert.deepEqual([answer.status, answer.body.error], [400, 'Email and password required']);
  }
});

check('sign-in by JSON: the four members, no cookie', async () => {
  const { email } = await signedUp();
  const answer = await visitor().post('/login', { json: { email, password: PASSWORD } });
  assert.equal(answer.status, 200);
  assert.deepEqual(Object.keys(answer.body).sort(), ['access_token', 'expires_in', 'refresh_token', 'token_type']);
  assert.equal(answer.body.token_type, 'Bearer');
  assert.ok(answer.body.expires_in > 0);
  assert.deepEqual(answer.cookies, []);
});

check('a wrong password and an unknown user are told in the same words', async () => {
  const { email } = await signedUp();
  for (const json of [{ email, password: 'wrong' }, { email: 'nobody@x.example', password: PASSWORD }]) {
    const answer = await visitor().post('/login', { json });
    assert.deepEqual([answer.status, answer.body.error], [401, 'Invalid credentials']);
  }
  const client = visitor();
  const csrf_token = await client.csrf();
  const page = await client.post('/login', { form: { email, password: 'wrong', csrf_token } });
  assert.equal(page.status, 401);
  assert.match(page.text, /Invalid credentials/);
  assert.match(page.headers.get('content-type'), /^text\/html/);
});

check('the API knows the bearer of a token, and its claims', async () => {
  const user = await signedUp();
  const { access_token } = await tokensOf(user);
  const { status, body } = await visitor().withBearer(access_token).get('/api/me');
  assert.equal(status, 200);
  assert.deepEqual(body, { id: user.id, email: user.email, role: 'user' });
});

check('401s are told apart: none, invalid, tampered, of another type', async () => {
  const { access_token, refresh_token } = await tokensOf(await signedUp());
  const none = await visitor().get('/api/me');
  refused(none, 401, 'credentials_required');
  assert.match(none.headers.get('www-authenticate'), /^Bearer/);
  const [head, claims, signature] = access_token.split('.');
  const changed = { ...JSON.parse(Buffer.from(claims, 'base64url')), sub: 'root' };
  const forged = `${head}.${Buffer.from(JSON.stringify(changed)).toString('base64url')}.${signature}`;
  refused(await visitor().withBearer(forged).get('/api/me'), 401, 'token_invalid');
  refused(await visitor().withBearer('garbage').get('/api/me'), 401, 'token_invalid');
  refused(await visitor().withBearer(refresh_token).get('/api/me'), 401, 'token_wrong_type');
});

check('refresh: new tokens, by either path, that are good', async () => {
  const user = await signedUp();
  let { refresh_token } = await tokensOf(user);
  for (const path of ['/refresh', '/api/auth/refresh']) {
    const answer = await visitor().post(path, { json: { refresh_token } });
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(Object.keys(answer.body).sort(), ['access_token', 'expires_in', 'refresh_token', 'token_type']);
    assert.notEqual(answer.body.refresh_token, refresh_token);
    const me = await visitor().withBearer(answer.body.access_token).get('/api/me');
    assert.deepEqual(me.body, { id: user.id, email: user.email, role: 'user' }, 'the claims are still there');
    ({ refresh_token } = answer.body);
  }
});

check('refresh: a lost answer can be asked for again', async () => {
  const { refresh_token } = await tokensOf(await signedUp());
  const answers = await Promise.all([1, 2, 3].map(() => visitor().post('/refresh', { json: { refresh_token } })));
  assert.deepEqual(answers.map(({ status }) => status), [200, 200, 200]);
  assert.equal(new Set(answers.map(({ body }) => body.refresh_token)).size, 1, 'one successor');
});

check('refresh: what is missing, bad, or of another type', async () => {
  const { access_token } = await tokensOf(await signedUp());
  for (const path of ['/refresh', '/api/auth/refresh']) {
    const missing = await visitor().post(path, { json: {} });
    assert.deepEqual([missing.status, missing.body.error], [400, 'Refresh token required']);
    refused(await visitor().post(path, { json: { refresh_token: 'ckr_garbage' } }), 401, 'token_invalid');
    refused(await visitor().post(path, { json: { refresh_token: access_token } }), 401, 'token_wrong_type');
  }
});

check('logout by token ends the session: access and refresh token with it', async () => {
  const { access_token, refresh_token } = await tokensOf(await signedUp());
  const client = visitor().withBearer(access_token);
  assert.equal((await client.get('/api/me')).status, 200);
  assert.equal((await client.post('/api/auth/logout')).status, 204);
  await eventually(async () => refused(await client.get('/api/me'), 401, 'session_ended'));
  refused(await visitor().post('/refresh', { json: { refresh_token } }), 401, 'session_ended');
});

check('sign-in by form: a fresh cookie, and on to the account', async () => {
  const user = await signedUp();
  const client = visitor();
  await client.csrf();
  const before = client.session();
  assert.ok(before, 'an anonymous session');
  const { answer } = await byForm(user, client);
  assert.equal(answer.headers.get('location'), '/account');
  assert.notEqual(client.session(), before);
  const line = answer.cookies.find((one) => one.includes(client.session()));
  for (const attribute of [/; ?HttpOnly/i, /; ?SameSite=Lax/i, /; ?Path=\/(;|$)/i]) assert.match(line, attribute);
  assert.deepEqual((await client.get('/api/me')).body.email, user.email);
  assert.match((await client.get('/account')).text, new RegExp(user.email));
});

check('after the sign-in a path of this site is followed, and nothing else', async () => {
  const user = await signedUp();
  const { answer } = await byForm(user, visitor(), { return_to: '/api/me?x=1' });
  assert.equal(answer.headers.get('location'), '/api/me?x=1');
  for (const return_to of ['//evil.example/', 'https://evil.example/', '/\\evil.example', 'javascript:alert(1)']) {
    const { answer: other } = await byForm(user, visitor(), { return_to });
    assert.equal(other.headers.get('location'), '/account', return_to);
  }
});

check('the protected page sends browsers to the sign-in and back, programs get 401', async () => {
  const page = await visitor().get('/account', { headers: { accept: 'text/html,*/*;q=0.8' } });
  assert.equal(page.status, 302);
  assert.match(page.headers.get('location'), /^\/login\?return_to=(%2F|\/)account$/);
  assert.equal((await visitor().get('/account')).status, 401);
});

check('CSRF: by cookie a token of the own session is needed', async () => {
  const { client } = await byForm(await signedUp());
  const { client: other } = await byForm(await signedUp());
  const foreign = await other.csrf();
  for (const csrf of [undefined, 'x', foreign]) {
    refused(await client.post('/api/auth/logout', { csrf }), 403, 'csrf_failed');
  }
  assert.equal((await client.get('/api/me')).status, 200, 'nothing has changed');
  const csrf = await client.csrf();
  const headers = { origin: 'https://evil.example' };
  refused(await client.post('/api/auth/logout', { csrf, headers }), 403, 'csrf_failed');
  assert.equal((await client.post('/api/auth/logout', { csrf })).status, 204);
  assert.equal(client.session(), undefined, 'the cookie is cleared');
});

check('CSRF: the sign-in form needs a token too', async () => {
  const { email } = await signedUp();
  const headers = { origin: baseUrl, 'sec-fetch-site': 'same-origin' };
  const answer = await visitor().post('/login', { form: { email, password: PASSWORD }, headers });
  assert.equal(answer.status, 403);
});

check('a cookie of a session that is over is nobody', async () => {
  const { client } = await byForm(await signedUp());
  const cookie = [...client.jar].map(([name, value]) => `${name}=${value}`).join('; ');
  assert.equal((await client.post('/api/auth/logout', { csrf: await client.csrf() })).status, 204);
  await eventually(async () => assert.equal((await visitor().get('/api/me', { headers: { cookie } })).status, 401));
  for (const bad of ['session=', 'session=cks_forged', 'session=%00', 'session', '=;;']) {
    assert.equal((await visitor().get('/api/me', { headers: { cookie: bad } })).status, 401, bad);
  }
});

check('sign out everywhere: cookies and tokens, of this user only', async () => {
  const [user, bystander] = [await signedUp(), await signedUp('bob')];
  const { client: one } = await byForm(user);
  const { client: two } = await byForm(user);
  const tokens = await tokensOf(user);
  const program = visitor().withBearer(tokens.access_token);
  const other = await tokensOf(bystander);
  assert.equal((await program.get('/api/me')).status, 200);
  assert.equal((await two.get('/api/me')).status, 200);
  const answer = await one.post('/api/auth/logout-everywhere', { csrf: await one.csrf() });
  assert.deepEqual([answer.status, answer.body], [200, { revoked: 3 }]);
  await eventually(async () => {
    assert.equal((await two.get('/api/me')).status, 401);
    assert.equal((await program.get('/api/me')).status, 401);
  });
  refused(await visitor().post('/refresh', { json: { refresh_token: tokens.refresh_token } }), 401, 'session_ended');
  assert.equal((await visitor().withBearer(other.access_token).get('/api/me')).status, 200);
});

check('a claim opens a door: 403 for a user, 200 for an administrator', async () => {
  const { access_token } = await tokensOf(await signedUp());
  refused(await visitor().withBearer(access_token).get('/api/admin'), 403, 'insufficient_claims');
  refused(await visitor().get('/api/admin'), 401, 'credentials_required');
  const { ADMIN_EMAIL: email, ADMIN_PASSWORD: password } = process.env;
  if (!email || !password) return 'ADMIN_EMAIL and ADMIN_PASSWORD are not set';
  const admin = await tokensOf({ email, password });
  assert.equal((await visitor().withBearer(admin.access_token).get('/api/admin')).status, 200);
  const { role } = await signedUp('admin');
  assert.equal(role, 'user', 'nobody is an administrator by an address that they signed up with');
  return undefined;
});

check('five a minute, for each session', async () => {
  const [one, two] = [await byForm(await signedUp()), await byForm(await signedUp())];
  const statuses = [];
  let last;
  for (let at = 0; at < 6; at += 1) {
    last = await one.client.get('/api/limited');
    statuses.push(last.status);
  }
  assert.deepEqual(statuses, [200, 200, 200, 200, 200, 429]);
  assert.equal(last.body.code, 'rate_limited');
  assert.ok(Number(last.headers.get('retry-after')) >= 1);
  assert.equal((await two.client.get('/api/limited')).status, 200);
});

check('a cart before the sign-in is there after it', async () => {
  const client = visitor();
  assert.deepEqual((await client.get('/api/cart')).body, { cart: {} });
  const csrf = await client.csrf();
  const put = (item, quantity, token) => client.post('/api/cart', { json: { item, quantity }, csrf: token });
  assert.deepEqual((await put('apple', 2, csrf)).body, { cart: { apple: 2 } });
  assert.deepEqual((await put('pear', 1, csrf)).body, { cart: { apple: 2, pear: 1 } });
  refused(await put('plum', 1, undefined), 403, 'csrf_failed');
  await byForm(await signedUp(), client);
  assert.deepEqual((await client.get('/api/cart')).body, { cart: { apple: 2, pear: 1 } });
  assert.deepEqual((await put('apple', 0, await client.csrf())).body, { cart: { pear: 1 } });
  assert.deepEqual((await client.get('/api/cart')).body, { cart: { pear: 1 } });
  await client.post('/api/auth/logout', { csrf: await client.csrf() });
  assert.deepEqual((await client.get('/api/cart')).body, { cart: {} });
});

check('forms alone: sign out', async () => {
  const { client } = await byForm(await signedUp());
  const answer = await client.post('/logout', { form: { csrf_token: await client.csrf() } });
  assert.deepEqual([answer.status, answer.headers.get('location')], [303, '/']);
  assert.equal((await client.get('/api/me')).status, 401);
});

check('a token is refused when its time is over, and a refresh goes on', async () => {
  const { access_token, refresh_token, expires_in } = await tokensOf(await signedUp());
  const client = visitor().withBearer(access_token);
  assert.equal((await client.get('/api/me')).status, 200);
  if (expires_in > 60) return 'access tokens live longer than a minute here';
  await pause(expires_in * 1000 + LEEWAY + 1_100);
  refused(await client.get('/api/me'), 401, 'token_expired');
  const answer = await visitor().post('/refresh', { json: { refresh_token } });
  assert.equal(answer.status, 200);
  assert.equal((await visitor().withBearer(answer.body.access_token).get('/api/me')).status, 200);
  return undefined;
});

async function browserChecks() {
  const executablePath = process.env.CHROMIUM_BIN ?? '/usr/bin/chromium';
  if (!existsSync(executablePath)) return `no Chromium at ${executablePath}`;
  const { chromium } = await import('playwright-core');
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
  const fill = async (page, email, password) => {
    await page.fill('input[name=email]', email);
    await page.fill('input[name=password]', password);
    await page.click('button:has-text("Sign in"), input[type=submit]');
  };
  check('browser: to the account by way of the sign-in, and out again', async () => {
    const { email } = await signedUp();
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${baseUrl}/account`);
    assert.match(page.url(), /\/login\?return_to=/);
    await fill(page, email, 'wrong');
    await page.waitForSelector('text=Invalid credentials');
    await fill(page, email, PASSWORD);
    await page.waitForURL(`${baseUrl}/account`);
    assert.match(await page.textContent('body'), new RegExp(email));
    assert.equal(await page.evaluate(() => document.cookie), '', 'no script sees the session cookie');
    await page.click('text="Sign out"');
    await page.waitForURL(`${baseUrl}/`);
    await page.goto(`${baseUrl}/account`);
    assert.match(page.url(), /\/login\?return_to=/);
    await context.close();
  });
  check('browser: sign out everywhere reaches the other browser', async () => {
    const { email } = await signedUp();
    const [one, two] = [await browser.newContext(), await browser.newContext()];
    const pages = [];
    for (const context of [one, two]) {
      const page = await context.newPage();
      await page.goto(`${baseUrl}/login`);
      await fill(page, email, PASSWORD);
      await page.waitForURL(`${baseUrl}/account`);
      pages.push(page);
    }
    await pages[0].click('text="Sign out everywhere"');
    await pages[0].waitForLoadState();
    await eventually(async () => {
      await pages[1].goto(`${baseUrl}/account`);
      assert.match(pages[1].url(), /\/login/);
    });
    await Promise.all([one.close(), two.close()]);
  });
  check('browser: a page of another site can change nothing', async () => {
    const { email } = await signedUp();
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${baseUrl}/login`);
    await fill(page, email, PASSWORD);
    await page.waitForURL(`${baseUrl}/account`);
    // Another host name is another site to the browser, and the same machine to us.
    const foreign = baseUrl.replace('127.0.0.1', 'localhost');
    await page.route(`${foreign}/evil`, (route) => route.fulfill({
      contentType: 'text/html',
      body: `<form method="post" action="${baseUrl}/logout"><button>Win</button></form>`,
    }));
    await page.goto(`${foreign}/evil`);
    await Promise.all([page.waitForNavigation(), page.click('text=Win')]);
    await page.goto(`${baseUrl}/account`);
    assert.equal(page.url(), `${baseUrl}/account`, 'still signed in');
    await context.close();
  });
  return { close: () => browser.close() };
}

const tally = { passed: 0, failed: 0, skipped: 0 };
const browser = await browserChecks();
if (typeof browser === 'string') {
  console.log(`SKIPPED: browser: ${browser}`);
  tally.skipped += 1;
}
for (const { name, run } of checks) {
  const began = performance.now();
  try {
    const why = await run();
    if (typeof why === 'string') {
      tally.skipped += 1;
      console.log(`SKIPPED: ${name}: ${why}`);
    } else {
      tally.passed += 1;
      console.log(`ok: ${name} (${Math.round(performance.now() - began)} ms)`);
    }
  } catch (fault) {
    tally.failed += 1;
    console.log(`FAILED: ${name}\n  ${String(fault.stack ?? fault).split('\n').slice(0, 12).join('\n  ')}`);
  }
}
await browser.close?.();
console.log(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`);
process.exitCode = tally.failed === 0 ? 0 : 1;
