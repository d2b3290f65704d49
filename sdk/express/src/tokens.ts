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
/** Keys are looked at anew after this long, whatever the feed says: the key set's own `max-age`. */
const KEYS_MAX = 300_000;

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
  /** Invariant: no key is here that was told to be revoked or removed since it was fetched. */
  #keys = new Map<string, Key>();
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #fetching: Promise<void> | undefined;
  /** Counts what was told of keys: an answer to a question of before is too old. */
  #generation = 0;

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
    // At each use: what was found genuine by a key is nothing once the key is gone.
    if (!(await this.#key(kid))) throw refusals.tokenInvalid();
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

  /** A key came or went: what it signed is looked at afresh, and the key set is too. */
  keyChanged(kid: string, state: string): void {
    this.#generation += 1;
    if (isGone(state)) {
      this.#keys.delete(kid);
      this.#genuine.clear();
    }
    this.#fetchedAt = Number.NEGATIVE_INFINITY;
  }

  /** Keys may have gone in a while that no log tells of any more: none is known until fetched. */
  forgetKeys(): void {
    this.#generation += 1;
    this.#keys.clear();
    this.#genuine.clear();
    this.#fetchedAt = Number.NEGATIVE_INFINITY;
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

  async #key(kid: string): Promise<Key | undefined> {
    // Whatever the key set says: a node that lags behind may still publish it.
    if (isGone(this.#feed.keyState(kid))) return undefined;
    const known = this.#keys.get(kid);
    const age = performance.now() - this.#fetchedAt;
    if (known) {
      // In the meantime the feed tells which are gone.
      if (age >= KEYS_MAX) this.#refetch().catch(() => (this.#fetchedAt = performance.now() - KEYS_MAX + REFETCH_MIN));
      return known;
    }
    if (age >= REFETCH_MIN) await this.#refetch();
    else await this.#fetching;
    return isGone(this.#feed.keyState(kid)) ? undefined : this.#keys.get(kid);
  }

  #refetch(): Promise<void> {
    this.#fetching ??= this.#fetch().finally(() => (this.#fetching = undefined));
    return this.#fetching;
  }

  async #fetch(): Promise<void> {
    const jose = await import('jose');
    const generation = this.#generation;
    const [metadata, jwks] = await Promise.all([
      this.#transport.ask({ method: 'GET', path: '/.well-known/oauth-authorization-server' }),
      this.#transport.ask({ method: 'GET', path: '/.well-known/jwks.json' }),
    ]);
    const keys = new Map<string, Key>();
    for (const jwk of (jwks.json.keys as JWK[]).slice(0, 64)) {
      if (jwk.kid === undefined || !ALGORITHMS.includes(jwk.alg ?? '')) continue;
      keys.set(jwk.kid, { key: await jose.importJWK(jwk), alg: jwk.alg ?? '' });
    }
    if (generation !== this.#generation) return this.#fetch();
    this.#issuer = metadata.json.issuer;
    this.#keys = keys;
    this.#fetchedAt = performance.now();
  }
}

/** A published key, and the one algorithm that it is for. */
interface Key {
  key: CryptoKey | Uint8Array;
  alg: string;
}

/** Whether a key in this state signs nothing that counts. */
function isGone(state: string | undefined): boolean {
  return state === 'revoked' || state === 'removed';
}

/** Who acts as the token's subject (RFC 8693 section 4.1). */
export function actorOf({ act }: JWTPayload): string | undefined {
  const sub: unknown = (act as { sub?: unknown } | undefined)?.sub;
  return typeof sub === 'string' ? sub : undefined;
}

/** The session's own claims: all that isn't registered. */
export function ownClaims(claims: JWTPayload): Record<string, unknown> {
  return Object.fromEntries(Object.entries(claims).filter(([name]) => !REGISTERED.has(name)));
}
