import { createHash } from 'node:crypto';
import type { Authority, Known } from './authority.js';
import type { Auth } from './carrier.js';
import { CloakroomError, refusals } from './errors.js';

/** What an application's old token says, once it has been verified. */
export interface LegacyToken {
  subject: string;
  claims?: Record<string, unknown>;
  /** When it was issued: the sign-in counts as no more recent than that. */
  issuedAt?: Date | number;
  /** When it expires: the session that it opens lives no longer. Numbers are seconds. */
  expiresAt: Date | number;
}

/**
 * Verifies a token from before, with the library and the secret from before. Returns nothing, or
 * throws, where it isn't a good one.
 */
export type LegacyVerifier = (
  token: string,
  kind: 'access' | 'refresh',
) => LegacyToken | undefined | Promise<LegacyToken | undefined>;

/** An old refresh token may be exchanged again for this long: an answer may have been lost. */
const GRACE = 30_000;

/** Tokens that were issued before the authority came: each has a session from its first use on. */
export class Legacy {
  readonly #authority: Authority;
  readonly #verify: LegacyVerifier;

  constructor(authority: Authority, verify: LegacyVerifier) {
    this.#authority = authority;
    this.#verify = verify;
  }

  /** Who an old access token is, if it is one that still counts. */
  async access(token: string): Promise<Omit<Auth, 'via'> | undefined> {
    const found = await this.#found(token, 'access');
    if (!found) return undefined;
    const { view } = await this.#session(`legacy access ${token}`, found, {});
    return {
      sid: view.id,
      subject: found.subject,
      claims: { ...found.claims, ...view.claims },
      authTime: found.issuedAt === undefined ? new Date(0) : dateOf(found.issuedAt),
      amr: view.amr,
      acr: view.acr,
      actor: view.actor ?? undefined,
    };
  }

  /** What an old refresh token says, which is retired by that. */
  async exchange(token: string): Promise<LegacyToken> {
    const found = await this.#found(token, 'refresh');
    if (!found) throw refusals.tokenInvalid();
    const { data } = await this.#session(`legacy refresh ${token}`, found, { exchangedAt: Date.now() });
    const { exchangedAt } = JSON.parse(data);
    if (Date.now() - exchangedAt > GRACE) {
      throw new CloakroomError({
        code: 'refresh_token_reused',
        status: 401,
        detail: 'this token was exchanged before',
      });
    }
    return found;
  }

  async #found(token: string, kind: 'access' | 'refresh'): Promise<LegacyToken | undefined> {
    try {
      const found = await this.#verify(token, kind);
      const isSomebody = typeof found?.subject === 'string' && found.subject !== '';
      return isSomebody && dateOf(found.expiresAt).getTime() > Date.now() ? found : undefined;
    } catch {
      return undefined;
    }
  }

  /** The session of an old token; an ended one stays ended, however long the token is valid. */
  async #session(name: string, found: LegacyToken, data: Record<string, unknown>): Promise<Known> {
    const handle = createHash('sha256').update(name).digest('base64url');
    try {
      return await this.#authority.lookupHandle(handle);
    } catch (refusal) {
      const code = refusal instanceof CloakroomError ? refusal.code : undefined;
      if (code === 'session_ended') throw refusals.sessionEnded((refusal as CloakroomError).reason);
      if (code !== 'not_found') throw refusal;
    }
    const left = Math.max(1, Math.ceil((dateOf(found.expiresAt).getTime() - Date.now()) / 1000));
    return this.#authority.putHandle(handle, {
      subject: found.subject,
      data,
      idle_timeout: left,
      lifetime: left,
    });
  }
}

function dateOf(at: Date | number): Date {
  return typeof at === 'number' ? new Date(at * 1000) : at;
}
