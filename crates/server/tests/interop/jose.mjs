// Judges the access tokens of a running authority with `jose`, and tries forgeries made by it.
//
// The authority's addresses, an API key and its algorithm come from the environment; the last line
// is `N passed, N failed`.

import * as jose from 'jose';

const { CLOAKROOM_PUBLIC: publicUrl, CLOAKROOM_ADMIN: adminUrl } = process.env;
const algorithm = process.env.CLOAKROOM_ALGORITHM;
const secret = new TextEncoder().encode(process.env.CLOAKROOM_SECRET);
const symmetric = algorithm === 'HS256';
const password = 'correct horse battery staple';
const counts = { passed: 0, failed: 0 };

async function check(name, body) {
  try {
    await body();
    counts.passed += 1;
  } catch (error) {
    counts.failed += 1;
    console.log(`FAILED ${algorithm} ${name}: ${error.message}`);
  }
}

function equal(actual, expected, what) {
  const [is, should] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (is !== should) throw new Error(`${what} is ${is}, expected ${should}`);
}

async function post(url, body, headers = {}) {
  const all = { 'content-type': 'application/json', ...headers };
  const answer = await fetch(url, { method: 'POST', headers: all, body: JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`POST ${new URL(url).pathname} answered ${answer.status} ${text}`);
  return JSON.parse(text);
}

async function signIn() {
  const identifier = `jose-${algorithm}@example.com`.toLowerCase();
  const claims = { email: identifier, role: 'user' };
  const authorization = `Bearer ${process.env.CLOAKROOM_API_KEY}`;
  await post(`${adminUrl}/admin/v1/users`, { identifier, password, claims }, { authorization });
  return post(`${publicUrl}/auth/login`, { identifier, password, delivery: 'bearer' });
}

async function accepted(token) {
  const headers = { authorization: `Bearer ${token}` };
  const answer = await fetch(`${publicUrl}/auth/session`, { headers });
  const body = await answer.json();
  return { status: answer.status, code: body.code };
}

async function refuses(token, code = 'token_invalid') {
  equal(await accepted(token), { status: 401, code }, 'the answer');
}

const { access_token: token } = await signIn();
const header = jose.decodeProtectedHeader(token);
const claims = jose.decodeJwt(token);
const keySet = jose.createRemoteJWKSet(new URL(`${publicUrl}/.well-known/jwks.json`));
const expected = {
  issuer: publicUrl, audience: 'cloakroom', typ: 'at+jwt', algorithms: [algorithm],
};
const verify = (text, more = {}) =>
  jose.jwtVerify(text, symmetric ? secret : keySet, { ...expected, ...more });

/** The live token's claims under another header or other claims, signed by `key`. */
function forge(key, { header: changedHeader = {}, claims: changedClaims = {} } = {}) {
  const payload = { ...claims, ...changedClaims };
  for (const name of Object.keys(payload)) {
    if (payload[name] === undefined) delete payload[name];
  }
  return new jose.SignJWT(payload).setProtectedHeader({ ...header, ...changedHeader }).sign(key);
}

await check('the live token is good here and there', async () => {
  const { payload, protectedHeader } = await verify(token);
  equal(Object.keys(protectedHeader).sort(), ['alg', 'kid', 'typ'], 'the header');
  const needed = ['acr', 'amr', 'aud', 'auth_time', 'epoch', 'exp', 'iat', 'iss', 'jti', 'nbf',
    'sid', 'sub'];
  equal(needed.filter((name) => !(name in payload)), [], 'what is missing');
  equal(payload.role, 'user', 'the role');
  equal((await accepted(token)).status, 200, 'the status');
});

await check('a refused audience is refused by jose', async () => {
  const failure = await verify(token, { audience: 'upstream' }).catch((error) => error.code);
  equal(failure, 'ERR_JWT_CLAIM_VALIDATION_FAILED', 'the error');
});

await check('the key set holds public members only', async () => {
  const { keys } = await (await fetch(`${publicUrl}/.well-known/jwks.json`)).json();
  const members = keys.flatMap((key) => Object.keys(key));
  const secretMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'k', 'oth'];
  equal(members.filter((name) => secretMembers.includes(name)), [], 'what is secret');
  equal(keys.some((key) => key.kid === header.kid), !symmetric, 'whether our key is listed');
});

await check('every flipped character is refused', async () => {
  const [head, body, signature] = token.split('.');
  const flip = (text) => `${text.slice(0, 8)}${text[8] === 'A' ? 'B' : 'A'}${text.slice(9)}`;
  await refuses(`${head}.${flip(body)}.${signature}`);
  await refuses(`${head}.${body}.${flip(signature)}`);
  await refuses(`${head}.${body}.`);
  await refuses(`${head}.${body}`);
});

await check('a token without a signature is refused', async () => {
  await refuses(new jose.UnsecuredJWT(claims).encode());
});

await check('a stranger\'s key under our key id is refused', async () => {
  if (symmetric) {
    await refuses(await forge(new TextEncoder().encode('another secret of thirty-two bytes!')));
  } else {
    const { privateKey } = await jose.generateKeyPair(algorithm);
    await refuses(await forge(privateKey));
  }
});

await check('a key inside the header is refused', async () => {
  const stranger = await jose.generateKeyPair('ES256', { extractable: true });
  const jwk = await jose.exportJWK(stranger.publicKey);
  await refuses(await forge(stranger.privateKey, { header: { alg: 'ES256', jwk } }));
});

await check('the public key is no shared secret', async () => {
  if (symmetric) return;
  const { keys } = await (await fetch(`${publicUrl}/.well-known/jwks.json`)).json();
  const jwk = keys.find((key) => key.kid === header.kid);
  const pem = await jose.exportSPKI(await jose.importJWK(jwk, algorithm));
  for (const text of [pem, pem.trim(), JSON.stringify(jwk), jwk.x ?? jwk.n]) {
    const key = new TextEncoder().encode(text);
    await refuses(await forge(key, { header: { alg: 'HS256' } }));
  }
});

await check('the assertion for upstreams is good there and not here', async () => {
  const headers = { authorization: `Bearer ${token}` };
  const answer = await fetch(`${publicUrl}/auth/verify`, { headers });
  equal(answer.status, 200, 'the status');
  const assertion = answer.headers.get('authorization').replace(/^Bearer /, '');
  const { payload } = await verify(assertion, { audience: 'upstream' });
  equal(payload.sub, claims.sub, 'the subject');
  await refuses(assertion, 'token_wrong_type');
});

if (symmetric) {
  await check('a token minted under the shared secret is good', async () => {
    equal((await accepted(await forge(secret))).status, 200, 'the status');
  });
  for (const name of ['iss', 'aud', 'sub', 'exp', 'iat', 'jti', 'sid']) {
    await check(`without ${name} it is refused`, async () => {
      await refuses(await forge(secret, { claims: { [name]: undefined } }));
    });
  }
  const changed = {
    'another issuer': { iss: 'https://other.example' },
    'another audience': { aud: 'other' },
    'an expiry in text': { exp: String(claims.exp) },
    'an expiry with a fraction': { exp: claims.exp + 0.5 },
    'another subject': { sub: `${claims.sub}x` },
  };
  for (const [name, change] of Object.entries(changed)) {
    await check(`with ${name} it is refused`, async () => {
      equal((await accepted(await forge(secret, { claims: change }))).status, 401, 'the status');
    });
  }
  for (const typ of [undefined, 'JWT', 'dpop+jwt', 'text/at+jwt']) {
    await check(`with the type ${typ} it is refused`, async () => {
      equal((await accepted(await forge(secret, { header: { typ } }))).status, 401, 'the status');
    });
  }
  await check('with the long and loud spelling of its type it is good', async () => {
    const long = await forge(secret, { header: { typ: 'application/AT+JWT' } });
    equal((await accepted(long)).status, 200, 'the status');
  });
  await check('with an expired time it is refused as expired', async () => {
    const past = { exp: claims.iat - 60, iat: claims.iat - 120, nbf: claims.iat - 120 };
    await refuses(await forge(secret, { claims: past }), 'token_expired');
  });
}

console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exit(counts.failed === 0 ? 0 : 1);
