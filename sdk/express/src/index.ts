import { cloakroom as middleware, type Cloakroom, type CloakroomOptions } from './middleware.js';
import { fake } from './testing.js';

/** Puts `req.session`, `req.user`, `req.auth` and `req.csrfToken()` on every request. */
export const cloakroom: {
  (options?: CloakroomOptions): Cloakroom;
  /** For tests of an application, without an authority. */
  readonly testing: { readonly fake: typeof fake };
} = Object.assign((options?: CloakroomOptions) => middleware(options), {
  testing: Object.freeze({ fake }),
});

export { login, logout, logoutEverywhere, type LoginOptions, type LoginResult } from './actions.js';
export type { SessionView, TokenSet } from './authority.js';
export type { Auth } from './carrier.js';
export type { Duration } from './duration.js';
export { CloakroomError, type Problem } from './errors.js';
export {
  csrf,
  problems,
  rateLimit,
  requireAuth,
  requireClaim,
  requireRecentAuth,
  type CsrfOptions,
  type RateLimitOptions,
} from './guards.js';
export type { LegacyToken, LegacyVerifier } from './legacy.js';
export type { Cloakroom, CloakroomOptions, Handler, RefusalHandler } from './middleware.js';
export type { Session, SessionCookie } from './session.js';
export { CloakroomStore, type CloakroomStoreOptions, type OldStore } from './store.js';
export type { Fake } from './testing.js';
export type { Logger } from './transport.js';
