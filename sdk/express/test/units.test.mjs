import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inner } from './inner.mjs';

const { changeBetween, merge, isEqual } = await inner('patch');
const { milliseconds } = await inner('duration');
const { Limiter, networkOf } = await inner('rate');
const { Bounded } = await inner('lru');
const { SessionCookieJar } = await inner('cookies');
const { makeCsrfToken, checkCsrfToken } = await inner('csrf');

/** A small generator of pseudo-random numbers, so that a failure can be repeated. */
function generator(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function randomJson(random, depth) {
  const kind = random(depth > 0 ? 8 : 5);
  if (kind === 0) return null;
  if (kind === 1) return random(3);
  if (kind === 2) return ['a', 'b', ''][random(3)];
  if (kind === 3) return random(2) === 0;
  if (kind === 4) return [];
  if (kind === 5) return Array.from({ length: random(3) }, () => randomJson(random, depth - 1));
  return randomObject(random, depth - 1);
}

function randomObject(random, depth) {
  return Object.fromEntries(Array.from({ length: random(4) }, () => [['x', 'y', 'z'][random(3)], randomJson(random, depth)]));
}

test('a change leads from what was to what is, for any data', () => {
  const random = generator(7);
  let patches = 0;
  for (let at = 0; at < 20_000; at += 1) {
    const [before, after] = [randomObject(random, 3), randomObject(random, 3)];
    const change = changeBetween(before, after);
    if (change === undefined) {
      assert.ok(isEqual(before, after));
    } else if ('patch' in change) {
      patches += 1;
      assert.deepEqual(merge(before, change.patch), after);
    } else {
      assert.deepEqual(change.apply(before), after);
    }
  }
  assert.ok(patches > 1_000);
});

test("a change leaves other people's keys alone", () => {
  const random = generator(11);
  for (let at = 0; at < 5_000; at += 1) {
    const [before, after] = [randomObject(random, 2), randomObject(random, 2)];
    const change = changeBetween(before, after);
    if (change === undefined) continue;
    const meanwhile = { ...before, theirs: 1 };
    const merged = 'patch' in change ? merge(meanwhile, change.patch) : change.apply(meanwhile);
    assert.deepEqual(merged, { ...after, theirs: 1 });
  }
});

test('durations are milliseconds or say their unit', () => {
  assert.deepEqual(['250ms', '2s', '15m', '1h', '7d', 5].map(milliseconds), [250, 2e3, 9e5, 36e5, 6048e5, 5]);
  for (const bad of ['', '5', '5 s', '-1s', '1w', 0, -1, Number.NaN]) {
    assert.throws(() => milliseconds(bad), TypeError, String(bad));
  }
});

test('a limit lets a burst through, then one for each share of the window', () => {
  const limiter = new Limiter(3, 3_000);
  const at = (now) => limiter.admit('k', now).admitted;
  assert.deepEqual([at(0), at(1), at(2), at(3)], [true, true, true, false]);
  assert.equal(limiter.admit('k', 3).retryAfter, 1);
  assert.deepEqual([at(999), at(1_000), at(1_001)], [false, true, false]);
  assert.equal(limiter.admit('other', 1_001).remaining, 2);
});

test('an IPv6 subscriber is one network, and an IPv4 address another', () => {
  assert.equal(networkOf('::ffff:192.0.2.7'), '192.0.2.7');
  assert.equal(networkOf('2001:db8:0:1::5'), networkOf('2001:0db8::1:a:b:c:d'));
  assert.notEqual(networkOf('2001:db8:0:1::5'), networkOf('2001:db8:0:2::5'));
  assert.equal(networkOf('fe80::1%eth0'), 'fe80:0:0:0');
  assert.equal(networkOf('::1'), '0:0:0:0');
});

test('a bounded map forgets the oldest', () => {
  const map = new Bounded(2);
  map.set('a', 1);
  map.set('b', 2);
  map.set('a', 3);
  map.set('c', 4);
  assert.deepEqual([map.get('a'), map.get('b'), map.get('c'), map.size], [3, undefined, 4, 2]);
});

test('a bounded map tells what it forgets, so that what leads there can go too', () => {
  const gone = [];
  const map = new Bounded(1, (key, value) => gone.push([key, value]));
  map.set('a', 1);
  map.set('a', 2);
  map.set('b', 3);
  map.delete('b');
  assert.deepEqual(gone, [['a', 2]]);
});

test('c1 over HTTPS a cookie that any page could have set is not believed', () => {
  const jar = new SessionCookieJar();
  assert.equal(jar.find('session=cks_a', true), 'none');
  assert.deepEqual(jar.find('__Host-session=cks_a', true), { token: 'cks_a' });
  assert.deepEqual(jar.find('session=cks_a', false), { token: 'cks_a' });
  assert.equal(jar.find('__Host-session=cks_a; session=cks_b', false), 'several');
  assert.equal(jar.find('session=other', false), 'none');
  assert.deepEqual(new SessionCookieJar('sid').find('sid=cks_a; session=cks_b', false), { token: 'cks_a' });
});

test('once the authority has named its cookie, no other counts', () => {
  const headers = new Map();
  const res = { getHeader: (name) => headers.get(name), setHeader: (name, value) => headers.set(name, value) };
  const jar = new SessionCookieJar();
  headers.set('Set-Cookie', 'theme=dark');
  jar.set(res, '__Host-session=cks_a; Path=/; Secure; HttpOnly; SameSite=Lax', 60);
  jar.set(res, '__Host-session=cks_b; Path=/; Secure; HttpOnly; SameSite=Lax', 60);
  assert.deepEqual(headers.get('Set-Cookie'), [
    'theme=dark',
    '__Host-session=cks_b; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=60',
  ]);
  assert.equal(jar.find('session=cks_a', false), 'none');
  jar.clear(res, true);
  assert.equal(headers.get('Cache-Control'), 'no-store');
  assert.equal(headers.get('Set-Cookie')[1], '__Host-session=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0');
});

test('d2 a CSRF token belongs to one session and differs each time', () => {
  const [key, other] = ['A'.repeat(43), 'B'.repeat(43)];
  const [one, two] = [makeCsrfToken(key), makeCsrfToken(key)];
  assert.notEqual(one, two);
  assert.ok(checkCsrfToken(key, one) && checkCsrfToken(key, two));
  assert.ok(!checkCsrfToken(other, one));
  for (const bad of ['', one.slice(1), `${one}A`, `${one.slice(0, -1)}=`, 'A'.repeat(64), `${one}\n`]) {
    assert.ok(!checkCsrfToken(key, bad), bad);
  }
});
