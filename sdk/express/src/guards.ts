import type { Auth } from './carrier.js';
import { checkCsrfToken, checkOrigin, isBrowsers, isSafe } from './csrf.js';
import { milliseconds, type Duration } from './duration.js';
import { CloakroomError, refusals } from './errors.js';
import { bearerOf, carrierOf, deny, ownOrigin, sendProblem, settingsOf, type Handler } from './middleware.js';
import { isEqual } from './patch.js';
import { Limiter, networkOf } from './rate.js';

/** The sign-in may lie this much ahead of our clock, in milliseconds. */
const LEEWAY = 5_000;

/** Lets through who is signed in. */
export function requireAuth(): Handler {
  return guard(() => undefined);
}

/**
 * Lets through whose claim has exactly this value, or, if it is an array, contains it. Of several
 * values one is enough; without a value the claim has to be there.
 */
export function requireClaim(name: string, ...values: unknown[]): Handler {
  return guard(({ claims }) => {
    const has = (value: unknown) => {
      const held = claims[name];
      return isEqual(held, value) || (Array.isArray(held) && held.some((one) => isEqual(one, value)));
    };
    const held = values.length === 0 ? claims[name] !== undefined : values.some(has);
    return held ? undefined : refusals.insufficientClaims();
  });
}

/** Lets through who has signed in within `maxAge`: for what a forgotten browser shouldn't do. */
export function requireRecentAuth(maxAge: Duration): Handler {
  const ms = milliseconds(maxAge);
  return guard(({ authTime }) => {
    const age = Date.now() - authTime.getTime();
    return age <= ms && age >= -LEEWAY ? undefined : refusals.reauthenticationRequired();
  });
}

function guard(check: (auth: Auth) => CloakroomError | undefined): Handler {
  return (req, res, next) => {
    attempt(next, () => {
      const carrier = carrierOf(req);
      const refusal = carrier.auth ? check(carrier.auth) : (carrier.refusal ?? refusals.credentialsRequired());
      if (refusal) deny(refusal, req, res, next);
      else next();
    });
  };
}

/** Settings of {@link csrf}. */
export interface CsrfOptions {
  /** The field of a form. Default: `csrf_token`, or `_csrf`. */
  field?: string;
}

/**
 * Refuses forged requests: an unsafe request by cookie needs a token of its session, in the header
 * `X-CSRF-Token` or a field of the body. Mount it after the parsers of bodies.
 */
export function csrf(options: CsrfOptions = {}): Handler {
  const fields = options.field === undefined ? ['csrf_token', '_csrf'] : [options.field];
  return (req, res, next) => {
    attempt(next, () => {
      const carrier = carrierOf(req);
      // By the middleware's own judgement of what a bearer token is: all else came by cookie.
      if (isSafe(req.method) || bearerOf(req.headers.authorization) !== undefined) return next();
      const why =
        checkOrigin(req, ownOrigin(req), settingsOf(req)?.allowedOrigins ?? []) ??
        tokenFault(req, carrier.csrfKey, fields);
      if (why === undefined) next();
      else deny(refusals.csrfFailed(why), req, res, next);
    });
  };
}

function tokenFault(req: any, csrfKey: string | undefined, fields: string[]): string | undefined {
  const token = req.headers['x-csrf-token'] ?? fields.map((field) => req.body?.[field]).find(Boolean);
  if (csrfKey === undefined) {
    return isBrowsers(req) ? 'step 4: there is no session that a token could belong to' : undefined;
  }
  if (typeof token !== 'string') return 'step 4: a token is required, as X-CSRF-Token or csrf_token';
  return checkCsrfToken(csrfKey, token) ? undefined : 'step 4: the token is not of this session';
}

/** Settings of {@link rateLimit}. */
export interface RateLimitOptions {
  /** How many. Default 100. */
  limit?: number;
  /** In which time. Default 15 minutes. */
  window?: Duration;
  /** Whom to count, where it isn't the session. */
  key?: (req: any) => string;
  /** What the headers call it. Default `session`. */
  name?: string;
}

/** Limits each signed-in session, and everybody else by network. Counted in this process. */
export function rateLimit(options: RateLimitOptions = {}): Handler {
  const limiter = new Limiter(options.limit ?? 100, milliseconds(options.window ?? '15m'));
  const seconds = Math.round(limiter.window / 1000);
  return (req, res, next) => {
    attempt(next, () => {
      // A session that anybody can have is no measure: a fresh one would be a fresh quota.
      const sid = carrierOf(req).auth?.sid;
      const key = options.key?.(req) ?? (sid === undefined ? `network ${networkOf(req.ip)}` : `session ${sid}`);
      const name = options.name ?? (sid === undefined ? 'network' : 'session');
      const { admitted, remaining, retryAfter } = limiter.admit(key, performance.now());
      res.setHeader('RateLimit-Policy', `"${name}";q=${limiter.limit};w=${seconds}`);
      res.setHeader('RateLimit', `"${name}";r=${remaining};t=${retryAfter}`);
      if (admitted) next();
      else sendProblem(refusals.rateLimited(retryAfter), res);
    });
  };
}

/** An error handler that answers our errors as JSON; others go on. Mount it last. */
export function problems() {
  return (error: unknown, _req: any, res: any, next: (error?: any) => void): void => {
    if (error instanceof CloakroomError && !res.headersSent) sendProblem(error, res);
    else next(error);
  };
}

function attempt(next: (error?: any) => void, work: () => void): void {
  try {
    work();
  } catch (fault) {
    next(fault);
  }
}
