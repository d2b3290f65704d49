// Four tabs of a real browser, a real authority, and a site that has both on one origin.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { eventually, pause, startAuthority } from '../../express/test/authority.mjs';

const executablePath = process.env.CHROMIUM_BIN ?? '/usr/bin/chromium';
const skip = existsSync(executablePath) ? false : `no Chromium at ${executablePath}`;
const PASSWORD = 'correct horse battery staple';
const TABS = 4;
let site;
let authority;
let browser;

before(async () => {
  if (skip) return;
  site = await startSite();
  // Without the authority's own patience: what joins the tabs is the helper.
  authority = await startAuthority({
    env: { CLOAKROOM_SERVER__ORIGIN: site.url, CLOAKROOM_REFRESH__GRACE: '1s', CLOAKROOM_TOKEN__ACCESS_TTL: '8s' },
  });
  site.target = authority.publicUrl;
  const { chromium } = await import('playwright-core');
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
});

after(async () => {
  await browser?.close();
  await authority?.close();
  site?.close();
});

/** A user who is signed in, with four tabs open. */
async function fourTabs(name) {
  await authority.admin('POST', '/users', { identifier: name, password: PASSWORD });
  const context = await browser.newContext();
  const tabs = [];
  for (let at = 0; at < TABS; at += 1) {
    const tab = await context.newPage();
    await tab.goto(site.url);
    tabs.push(tab);
  }
  await tabs[0].evaluate(async ([identifier, password]) => {
    const { csrf_token } = await (await fetch('/auth/csrf-token')).json();
    const answer = await fetch('/auth/login', {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-csrf-token': csrf_token },
      body: JSON.stringify({ identifier, password, delivery: 'split' }),
    });
    window.session.adopt(await answer.json());
  }, [name, PASSWORD]);
  site.reset();
  return { context, tabs };
}

const me = (tab) => tab.evaluate(async () => (await window.session.fetch('/auth/session')).status);
const tokenOf = (tab) => tab.evaluate(() => window.session.token());
const outOf = (tab) => tab.evaluate(() => window.out);

test('a sign-in in one tab is a sign-in in all', { skip }, async () => {
  const { context, tabs } = await fourTabs('one');
  assert.deepEqual(await Promise.all(tabs.map(me)), [200, 200, 200, 200]);
  assert.equal(site.refreshes, 0);
  await context.close();
});

test('four tabs that meet a 401 at once cause one refresh', { skip }, async () => {
  const { context, tabs } = await fourTabs('storm');
  await Promise.all(tabs.map(me));
  const token = await tokenOf(tabs[0]);
  await authority.admin('POST', '/tokens/revoke', { token });
  const statuses = await Promise.all(tabs.flatMap((tab) => [me(tab), me(tab), me(tab)]));
  assert.deepEqual([...new Set(statuses)], [200]);
  assert.equal(site.refreshes, 1);
  assert.equal(new Set(await Promise.all(tabs.map(tokenOf))).size, 1);
  await context.close();
});

test('timers of four tabs cause one refresh for each life of a token', { skip }, async () => {
  const { context, tabs } = await fourTabs('timers');
  const began = Date.now();
  await pause(14_000);
  assert.deepEqual(await Promise.all(tabs.map(me)), [200, 200, 200, 200]);
  // A token lives 8 s and is renewed after 6.
  const lives = Math.floor((Date.now() - began) / 6_000);
  assert.equal(site.refreshes, lives);
  assert.equal(site.together, 1, 'never two at once');
  await context.close();
});

test('a new tab has the token of those that are there', { skip }, async () => {
  const { context, tabs } = await fourTabs('new');
  const token = await tokenOf(tabs[0]);
  const fifth = await context.newPage();
  await fifth.goto(site.url);
  assert.equal(await tokenOf(fifth), token);
  assert.equal(site.refreshes, 0);
  await context.close();
});

test('tabs that were all reloaded cause one refresh, and nobody is signed out', { skip }, async () => {
  const { context, tabs } = await fourTabs('reload');
  await Promise.all(tabs.map((tab) => tab.goto('about:blank')));
  await Promise.all(tabs.map((tab) => tab.goto(site.url)));
  assert.deepEqual(await Promise.all(tabs.map(me)), [200, 200, 200, 200]);
  assert.equal(site.together, 1);
  assert.equal(site.refreshes, 1);
  await context.close();
});

test('signing out in one tab is told in all', { skip }, async () => {
  const { context, tabs } = await fourTabs('out');
  await tabs[2].evaluate(() => window.session.signOut());
  for (const tab of tabs) {
    await eventually(async () => assert.deepEqual(await outOf(tab), ['signed_out']));
  }
  await context.close();
});

test('a session that ended elsewhere is over in all tabs, with its reason', { skip }, async () => {
  const { context, tabs } = await fourTabs('ended');
  const user = await authority.admin('GET', '/users?identifier=ended');
  const { id } = user.body.users[0];
  await authority.admin('DELETE', `/subjects/${id}/sessions`);
  await tabs[1].evaluate(() => window.session.fetch('/auth/session').catch(() => undefined));
  for (const tab of tabs) {
    await eventually(async () => assert.deepEqual(await outOf(tab), ['signed_out_everywhere']));
  }
  await context.close();
});

test('an authority that is away signs nobody out', { skip }, async () => {
  const { context, tabs } = await fourTabs('away');
  await authority.stop();
  const failed = await tabs[0].evaluate(() => window.session.refresh().then(() => 'fine', () => 'failed'));
  assert.equal(failed, 'failed');
  await authority.start();
  assert.deepEqual(await Promise.all(tabs.map(me)), [200, 200, 200, 200]);
  assert.deepEqual(await outOf(tabs[0]), []);
  await context.close();
});

test('a page without a session is told so', { skip }, async () => {
  const context = await browser.newContext();
  const tab = await context.newPage();
  await tab.goto(site.url);
  const code = await tab.evaluate(() => window.session.fetch('/echo').catch((fault) => fault.code));
  assert.equal(code, 'refresh_token_required');
  assert.equal((await outOf(tab)).length, 1);
  await context.close();
});

test('the token goes to no other origin', { skip }, async () => {
  const { context, tabs } = await fourTabs('foreign');
  const foreign = site.url.replace('127.0.0.1', 'localhost');
  await tabs[0].evaluate((url) => window.session.fetch(`${url}/echo`).catch(() => undefined), foreign);
  await tabs[0].evaluate(() => window.session.fetch('/echo'));
  assert.deepEqual(site.seen, [undefined, 'Bearer']);
  await context.close();
});

async function startSite() {
  const helper = readFileSync(new URL('../cloakroom-browser.js', import.meta.url));
  const page = `<!doctype html><title>tab</title><script type="module">
    import { createSession } from '/cloakroom-browser.js';
    window.out = [];
    window.session = createSession({ onSignedOut: (why) => window.out.push(why.reason) });
  </script>`;
  const state = { refreshes: 0, together: 0, running: 0, seen: [] };
  const server = http.createServer((req, res) => {
    if (req.url === '/') return res.writeHead(200, { 'content-type': 'text/html' }).end(page);
    if (req.url === '/cloakroom-browser.js') {
      return res.writeHead(200, { 'content-type': 'text/javascript' }).end(helper);
    }
    if (req.url === '/echo') {
      state.seen.push(req.headers.authorization?.split(' ')[0]);
      return res.writeHead(200, { 'access-control-allow-origin': '*' }).end();
    }
    if (!req.url.startsWith('/auth/')) return res.writeHead(404).end();
    return forward(state, req, res);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return Object.assign(state, {
    url: `http://127.0.0.1:${server.address().port}`,
    reset: () => Object.assign(state, { refreshes: 0, together: 0, seen: [] }),
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  });
}

function forward(state, req, res) {
  const isRefresh = req.url === '/auth/refresh';
  if (isRefresh) {
    state.refreshes += 1;
    state.running += 1;
    state.together = Math.max(state.together, state.running);
    res.once('close', () => (state.running -= 1));
  }
  const onward = http.request(state.target + req.url, { method: req.method, headers: req.headers });
  onward.on('response', (response) => {
    // Slow enough that a second one would meet it.
    setTimeout(() => response.pipe(res.writeHead(response.statusCode, response.headers)), isRefresh ? 100 : 0);
  });
  onward.on('error', () => res.writeHead(502).end());
  req.pipe(onward);
}
