// Rotates the signing keys as often as the authority lets it, while clients refresh and `jose`
// verifies every token over the key set with its own ordinary caching: none may ever be refused.
//
// Runs in a time that passes many times faster. The last line is `N passed, N failed`.

import * as jose from 'jose';

const { CLOAKROOM_PUBLIC: publicUrl, CLOAKROOM_ADMIN: adminUrl } = process.env;
const authorization = `Bearer ${process.env.CLOAKROOM_API_KEY}`;
const password = 'correct horse battery staple';
/** How long a key set may be cached, as its `Cache-Control` says. */
const cacheSeconds = 300;
const seconds = Number(process.env.SECONDS_LONG);
const until = Date.now() + seconds * 1000;
const keySet = jose.createRemoteJWKSet(new URL(`${publicUrl}/.well-known/jwks.json`));
const expected = { issuer: publicUrl, audience: 'cloakroom', typ: 'at+jwt' };
const seen = { verified: 0, refused: [], kids: new Set(), rotations: 0, early: 0 };

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function ask(method, url, body, headers = {}) {
  const answer = await fetch(url, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  return { status: answer.status, body: text === '' ? {} : JSON.parse(text) };
}

async function judge(token) {
  seen.kids.add(jose.decodeProtectedHeader(token).kid);
  try {
    await jose.jwtVerify(token, keySet, expected);
    seen.verified += 1;
  } catch (error) {
    seen.refused.push(`jose: ${error.message}`);
  }
  const here = await ask('GET', `${publicUrl}/auth/session`, undefined,
    { authorization: `Bearer ${token}` });
  if (here.status !== 200) seen.refused.push(`the authority: ${here.status} ${here.body.code}`);
}

async function client(number) {
  const identifier = `rotation-${number}@example.com`;
  await ask('POST', `${adminUrl}/admin/v1/users`, { identifier, password }, { authorization });
  const login = { identifier, password, delivery: 'bearer' };
  let tokens = (await ask('POST', `${publicUrl}/auth/login`, login)).body;
  while (Date.now() < until) {
    await judge(tokens.access_token);
    await pause(20);
    const answer = await ask('POST', `${publicUrl}/auth/refresh`,
      { refresh_token: tokens.refresh_token });
    if (answer.status !== 200) {
      seen.refused.push(`refresh: ${answer.status} ${answer.body.code}`);
      return;
    }
    // The token before the refresh is good until its own end.
    await judge(tokens.access_token);
    tokens = answer.body;
  }
}

async function rotate() {
  while (Date.now() < until) {
    const answer = await ask('POST', `${adminUrl}/admin/v1/keys/rotate`, undefined,
      { authorization });
    if (answer.status === 200) seen.rotations += 1;
    else if (answer.status === 409) seen.early += 1;
    else seen.refused.push(`rotate: ${answer.status} ${answer.body.code}`);
    await pause(500);
  }
}

/** Whether a token of a revoked key is refused at once here, and by plain readers of the key set:
 *  by one that reads it anew at once, by one that has it in its cache when its time is over. */
async function revoke() {
  const identifier = 'revoked@example.com';
  await ask('POST', `${adminUrl}/admin/v1/users`, { identifier, password }, { authorization });
  const login = { identifier, password, delivery: 'bearer' };
  const token = (await ask('POST', `${publicUrl}/auth/login`, login)).body.access_token;
  const { kid } = jose.decodeProtectedHeader(token);
  // It is the key that has to be refused, not a token that has run out meanwhile.
  const atItsTime = { ...expected, currentDate: new Date(jose.decodeJwt(token).iat * 1000) };
  const url = new URL(`${publicUrl}/.well-known/jwks.json`);
  const by = (keys) => jose.jwtVerify(token, keys, atItsTime).then(() => 'taken', (e) => e.code);
  const cached = jose.createRemoteJWKSet(url, { cacheMaxAge: cacheSeconds * 1000 });
  const before = await by(cached);
  const path = `${adminUrl}/admin/v1/keys/${kid}/revoke`;
  const revoked = await ask('POST', path, undefined, { authorization });
  const over = Date.now() + cacheSeconds * 1000;
  const here = await ask('GET', `${publicUrl}/auth/session`, undefined,
    { authorization: `Bearer ${token}` });
  const anew = await by(jose.createRemoteJWKSet(url));
  while (Date.now() <= over) await pause(50);
  const after = await by(cached);
  console.log(`revoked: ${revoked.status}, ${here.status}, ${anew}, with a cache ${before}, ${after}`);
  return {
    'a revoked key verifies nothing here': revoked.status === 200 && here.status === 401,
    'nor for whoever reads the key set anew': anew === 'ERR_JWKS_NO_MATCHING_KEY',
    'nor for a cache that has run out':
      before === 'taken' && after === 'ERR_JWKS_NO_MATCHING_KEY',
  };
}

await Promise.all([rotate(), ...[0, 1, 2].map(client)]);
const checks = {
  'no genuine token was refused': seen.refused.length === 0,
  'keys were rotated more than once': seen.rotations >= 2 && seen.kids.size >= 3,
  'and not before the next one was published long enough': seen.early > seen.rotations,
  ...(await revoke()),
  'hundreds of tokens were looked at': seen.verified > 500,
};
console.log(`jose: ${seen.verified} verified, ${seen.kids.size} keys, ${seen.rotations} rotations`);
for (const refusal of seen.refused.slice(0, 5)) console.log(`refused: ${refusal}`);
const failed = Object.keys(checks).filter((name) => !checks[name]);
for (const name of failed) console.log(`FAILED rotation: ${name}`);
console.log(`${Object.keys(checks).length - failed.length} passed, ${failed.length} failed`);
