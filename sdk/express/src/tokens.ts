import { createHash } from 'node:crypto';
import type { CryptoKey, JWK, JWTPayload } from 'jose';
import { CloakroomError, refusals } from './errors.js';
import type { Feed } from './feed.js';
import { Bounded } from './lru.js';
import type { Transport } from './transport.js';

/** Claims that say something of the token or the sign-in, not of the user. */
const REGISTERED = new Set([
  'iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'sid', 'auth_time', 'amr', 'acr', 'act', 'epoch',
]);
/** Leeway for `exp`, `nbf` and `iat`, in seconds: the authority's own. */
const LEEWAY = 5;
const ALGORITHMS = ['EdDSA', 'ES256', 'RS256'];
/** Longer ones the authority never makes. */
const TOKEN_BYTES_MAX = 8 * 1024;
/** The audience of gateways' assertions about their users, which are no credentials of theirs. */
const GATEWAYS = 'upstream';
const CACHED_MAX = 10_000;
/** An unknown `kid` makes us look for new keys at most this often, in milliseconds. */
const REFETCH_MIN = 60_000;

/** A verified access token. */
export interface AccessClaims extends JWTPayload {
  sub: string;
  sid: string;
  jti: string;
  exp: number;
  iat: number;
  auth_time: number;
  amr: string[];
  acr: string;
  epoch: number;
}

/** Judges access tokens here: by the published keys, and by the feed. */
export class TokenVerifier {
  readonly #transport: Transport;
  readonly #feed: Feed;
  readonly #audience: string;
  readonly #genuine = new Bounded<string, { claims: AccessClaims; kid: string }>(CACHED_MAX);
  #issuer: string | undefined;
  #keys = new Map<string, { key: CryptoKey | Uint8Array; alg: string }>();
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #fetching: Promise<void> | undefined;

  constructor(transport: Transport, feed: Feed, audience: string) {
    this.#transport = transport;
    this.#feed = feed;
    this.#audience = audience;
  }

  /** The claims of a live token. `undefined`: it can't be judged here, ask the authority. */
  async verify(token: string): Promise<AccessClaims | undefined> {
    const digest = createHash('sha256').update(token).digest('base64url');
    let known = this.#genuine.get(digest);
    if (!known) {
      known = await this.#open(token);
      if (!known) return undefined;
      this.#genuine.set(digest, known);
    }
    const { claims, kid } = known;
    if (this.#feed.keyState(kid) === 'revoked') throw refusals.tokenInvalid();
    if (Date.now() / 1000 >= claims.exp + LEEWAY) {
      this.#genuine.delete(digest);
      throw refusals.tokenExpired();
    }
    const against = this.#feed.against(claims);
    if (against === undefined) return claims;
    if (against === 'token_expired') throw refusals.tokenExpired();
    if (against === 'token_invalid') throw refusals.tokenInvalid();
    throw refusals.sessionEnded(against.ended);
  }

  /** A key came or went: what it signed is looked at afresh. */
  keyChanged(state: string): void {
    if (state === 'revoked' || state === 'removed') this.#genuine.clear();
    else this.#fetchedAt = Number.NEGATIVE_INFINITY;
  }

  async #open(token: string): Promise<{ claims: AccessClaims; kid: string } | undefined> {
    if (token.length > TOKEN_BYTES_MAX) throw refusals.tokenInvalid();
    const jose = await import('jose');
    let header: { alg?: string; kid?: string; typ?: string };
    try {
      header = jose.decodeProtectedHeader(token);
    } catch (cause) {
      throw refusals.tokenInvalid(cause);
    }
    // A shared secret is the authority's and its one old backend's: those tokens are asked about.
    if (header.alg === 'HS256') return undefined;
    const isOurs = header.kid !== undefined && header.typ !== undefined;
    if (!isOurs || !ALGORITHMS.includes(header.alg ?? '')) throw refusals.tokenInvalid();
    const found = await this.#key(header.kid ?? '');
    if (!found) throw refusals.tokenInvalid();
    try {
      const { payload } = await jose.jwtVerify(token, found.key as CryptoKey, {
        algorithms: [found.alg],
        typ: 'at+jwt',
        issuer: this.#issuer ?? '',
        audience: this.#audience,
        clockTolerance: LEEWAY,
        requiredClaims: ['sub', 'sid', 'jti', 'exp', 'iat', 'nbf', 'auth_time', 'epoch'],
      });
      if ((payload.iat ?? 0) > Date.now() / 1000 + LEEWAY) throw refusals.tokenInvalid();
      if ([payload.aud].flat().includes(GATEWAYS)) throw refusals.tokenWrongType();
      return { claims: payload as AccessClaims, kid: header.kid ?? '' };
    } catch (cause) {
      if (cause instanceof CloakroomError) throw cause;
      if (cause instanceof jose.errors.JWTExpired) throw refusals.tokenExpired();
      // Signed by the authority, but for another purpose.
      if (cause instanceof jose.errors.JWTClaimValidationFailed) {
        const isGateways = cause.claim === 'aud' && [cause.payload.aud].flat().includes(GATEWAYS);
        if (cause.claim === 'typ' || isGateways) throw refusals.tokenWrongType();
      }
      throw refusals.tokenInvalid(cause);
    }
  }

  async #key(kid: string): Promise<{ key: CryptoKey | Uint8Array; alg: string } | undefined> {
    const known = this.#keys.get(kid);
    if (known) return known;
    if (performance.now() - this.#fetchedAt >= REFETCH_MIN) {
      this.#fetching ??= this.#fetch().finally(() => (this.#fetching = undefined));
    }
    await this.#fetching;
    return this.#keys.get(kid);
  }

  async #fetch(): Promise<void> {
    const jose = await import('jose');
    const [metadata, jwks] = await Promise.all([
      this.#transport.ask({ method: 'GET', path: '/.well-known/oauth-authorization-server' }),
      this.#transport.ask({ method: 'GET', path: '/.well-known/jwks.json' }),
    ]);
    const keys = new Map<string, { key: CryptoKey | Uint8Array; alg: string }>();
    for (const jwk of (jwks.json.keys as JWK[]).slice(0, 64)) {
      if (jwk.kid === undefined || !ALGORITHMS.includes(jwk.alg ?? '')) continue;
      keys.set(jwk.kid, { key: await jose.importJWK(jwk), alg: jwk.alg ?? '' });
    }
    this.#issuer = metadata.json.issuer;
    this.#keys = keys;
    this.#fetchedAt = performance.now();
  }
}

/** The session's own claims: all that isn't registered. */
export function ownClaims(claims: JWTPayload): Record<string, unknown> {
  return Object.fromEntries(Object.entries(claims).filter(([name]) => !REGISTERED.has(name)));
}
