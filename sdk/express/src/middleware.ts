import { Authority, type Opened, type TokenSet } from './authority.js';
import { settle, type Callback } from './callbacks.js';
import { Carrier, type Auth, type Backend, type Shared } from './carrier.js';
import { SessionCookieJar } from './cookies.js';
import { checkOrigin, isSafe } from './csrf.js';
import { CloakroomError, refusals } from './errors.js';
import { milliseconds, type Duration } from './duration.js';
import { Legacy, type LegacyVerifier } from './legacy.js';
import { actorOf, ownClaims } from './tokens.js';
import { traced, type Logger } from './transport.js';

/** What Express calls. `any`, so that the types of Express 4 and 5 both fit. */
export type Handler = (req: any, res: any, next: (error?: any) => void) => void;
/** Answers a request that was refused. */
export type RefusalHandler = (refusal: CloakroomError, req: any, res: any, next: (error?: any) => void) => void;

/** Settings of {@link cloakroom}. */
export interface CloakroomOptions {
  /** The authority's admin listener. Default: the variable `CLOAKROOM_URL`. */
  url?: string;
  /** Needs the scopes `sessions:read` and `sessions:write`. Default: `CLOAKROOM_API_KEY`. */
  apiKey?: string;
  /** What access tokens must be for. Default `cloakroom`. */
  audience?: string;
  /** Until an unanswered request to the authority is given up. Default 2 s. */
  timeout?: Duration;
  /**
   * How old the news of endings may be while requests are answered without asking; beyond, every
   * request asks. Default 2 s.
   */
  maxStaleness?: Duration;
  /** Where a browser is sent that isn't signed in. Without it the answer is always JSON. */
  signInUrl?: string;
  /** Answers a 401 in place of the redirect or JSON. */
  onUnauthenticated?: RefusalHandler;
  /** Answers a 403 in place of JSON. */
  onForbidden?: RefusalHandler;
  /** Our own origin as browsers see it. Default: protocol and `Host` of the request. */
  origin?: string;
  /** Other origins whose pages may send requests by cookie. */
  allowedOrigins?: string[];
  /** `false` leaves out the check where a request by cookie came from. */
  originCheck?: boolean;
  /** The session cookie's name, where it isn't the authority's usual one. */
  cookieName?: string;
  /** Whose a session is by its data; for Passport `s => s.passport?.user`. */
  subject?: (data: any) => unknown;
  /** The claims of a session that `subject` has found an owner of. */
  claims?: (data: any) => Record<string, unknown>;
  /**
   * Verifies tokens that the application issued before, for as long as they are valid: the first
   * use of each opens a session, so that it can be signed out like any other.
   */
  legacyTokens?: LegacyVerifier;
  /** Where warnings go. Default: `console`. */
  logger?: Logger;
}

/** The middleware, and what goes with it. */
export interface Cloakroom extends Handler {
  /** Resolves when the authority was reached and takes the API key; rejects with what is wrong. */
  ready(): Promise<void>;
  /** Rotates a refresh token. Rejects with `token_expired`, `token_invalid`, … */
  refresh(refreshToken: string, callback?: Callback<TokenSet>): Promise<TokenSet>;
  /**
   * A user's epoch, for `login`: read before the password is checked, it lets a "sign out
   * everywhere" in between win. Needs the scope `users:read`.
   */
  epochOf(subject: string, callback?: Callback<number>): Promise<number>;
  /**
   * Retires a refresh token from before (option `legacyTokens`), and answers tokens of a new
   * session in its place.
   */
  exchange(req: any, oldRefreshToken: string): Promise<TokenSet>;
  /** Stops following the authority. */
  close(): void;
  /** Saves that came after the end of their session, and were dropped. */
  readonly lateSaves: number;
}

const CARRIER = Symbol.for('cloakroom.carrier');
const SETTINGS = Symbol.for('cloakroom.settings');

/** What refusals need to know of the middleware in front. */
interface Settings {
  signInUrl: string | undefined;
  onUnauthenticated: RefusalHandler | undefined;
  onForbidden: RefusalHandler | undefined;
  origin: string | undefined;
  allowedOrigins: string[];
  originCheck: boolean;
}

/** Puts `req.session`, `req.user`, `req.auth` and `req.csrfToken()` on every request. */
export function cloakroom(options: CloakroomOptions = {}): Cloakroom {
  const url = options.url ?? process.env['CLOAKROOM_URL'];
  const apiKey = options.apiKey ?? process.env['CLOAKROOM_API_KEY'];
  if (!url) throw new TypeError('cloakroom: no url (option `url`, or CLOAKROOM_URL): the authority\'s admin listener');
  if (!apiKey) throw new TypeError('cloakroom: no API key (option `apiKey`, or CLOAKROOM_API_KEY)');
  const authority = new Authority({
    url,
    apiKey,
    audience: options.audience ?? 'cloakroom',
    timeout: milliseconds(options.timeout ?? '2s'),
    maxStaleness: milliseconds(options.maxStaleness ?? '2s'),
    logger: options.logger ?? console,
  });
  const legacy = options.legacyTokens && new Legacy(authority, options.legacyTokens);
  const [middleware, shared] = middlewareOver(backendOf(authority, legacy), options);
  return Object.defineProperties(middleware as Cloakroom, {
    ready: { value: () => authority.ready() },
    refresh: {
      value: (token: string, callback?: Callback<TokenSet>) => settle(authority.refresh(token), callback),
    },
    epochOf: {
      value: (subject: string, callback?: Callback<number>) => settle(authority.epochOf(String(subject)), callback),
    },
    exchange: { value: (req: any, token: string) => exchange(legacy, req, token) },
    close: { value: () => authority.close() },
    lateSaves: { get: () => shared.lateSaves },
  });
}

/** The same over any backend. */
export function middlewareOver(backend: Backend, options: CloakroomOptions): [Handler, Shared] {
  const shared: Shared = {
    backend,
    jar: new SessionCookieJar(options.cookieName),
    logger: options.logger ?? console,
    subject: options.subject,
    claims: options.claims,
    lateSaves: 0,
  };
  const settings: Settings = {
    signInUrl: options.signInUrl,
    onUnauthenticated: options.onUnauthenticated,
    onForbidden: options.onForbidden,
    origin: options.origin,
    allowedOrigins: options.allowedOrigins ?? [],
    originCheck: options.originCheck !== false,
  };
  const middleware: Handler = (req, res, next) => {
    if (req[CARRIER]) return next();
    const carrier = new Carrier(shared, req, res);
    req[CARRIER] = carrier;
    req[SETTINGS] = settings;
    const serve = () => identify(carrier).then(() => {
      attach(carrier, next);
      const refusal = originRefusal(carrier, settings);
      if (refusal) deny(refusal, req, res, next);
      else next();
    }, next);
    traced(req.headers.traceparent, serve);
  };
  return [middleware, shared];
}

async function exchange(legacy: Legacy | undefined, req: any, token: string): Promise<TokenSet> {
  if (!legacy) throw new TypeError('cloakroom: exchange needs the option `legacyTokens`');
  const { subject, claims } = await legacy.exchange(token);
  const opened = await carrierOf(req).issue({ subject, claims, delivery: 'bearer' });
  const { access_token = '', refresh_token = '', expires_in = 0, refresh_expires_in } = opened;
  return { access_token, refresh_token, expires_in, refresh_expires_in, token_type: 'Bearer' };
}

function backendOf(authority: Authority, legacy: Legacy | undefined): Backend {
  return {
    lookup: (token, atLeast) => authority.lookup(token, atLeast),
    access: async (token) => (await legacy?.access(token)) ?? accessOf(authority, token),
    data: (sid) => authority.data(sid),
    open: (body) => authority.open(body),
    end: (sid) => authority.end(sid),
    endAll: (subject) => authority.endAll(subject),
    change: (sid, change) => authority.change(sid, change),
    noteUse: (sid) => authority.noteUse(sid),
    noteReplaced: (sid) => authority.feed.noteEnd(sid, 'replaced'),
  };
}

/** Judged here while the feed is fresh; otherwise the authority is asked. */
async function accessOf(authority: Authority, token: string): Promise<Omit<Auth, 'via'>> {
  const claims = authority.isFresh ? await authority.tokens.verify(token) : undefined;
  if (claims) {
    authority.noteAccess(claims.sid);
    return {
      sid: claims.sid,
      subject: claims.sub,
      claims: ownClaims(claims),
      authTime: new Date(claims.auth_time * 1000),
      amr: claims.amr,
      acr: claims.acr,
      actor: actorOf(claims),
    };
  }
  const view = await authority.verifyByAsking(token);
  const { id: sid, subject, claims: own, auth_time, amr, acr } = view;
  const actor = view.actor ?? undefined;
  return { sid, subject: subject ?? '', claims: own, authTime: new Date(auth_time), amr, acr, actor };
}

/** Finds out whose request it is. Throws only where nobody knows. */
async function identify(carrier: Carrier): Promise<void> {
  const { req } = carrier;
  const bearer = bearerOf(req.headers.authorization);
  const cookie = carrier.shared.jar.find(req.headers.cookie, req.secure === true);
  try {
    if (bearer !== undefined) {
      judgeBearer(bearer);
      carrier.adoptBearer(await carrier.shared.backend.access(bearer));
    } else if (typeof cookie === 'object') {
      carrier.adopt(cookie.token, await carrier.shared.backend.lookup(cookie.token, carrier.shared.jar.seen(req.headers.cookie)));
    }
  } catch (refusal) {
    if (!(refusal instanceof CloakroomError) || refusal.status !== 401) throw refusal;
    carrier.refusal = refusal;
  }
}

/** Throws where a text can't be an access token, by its looks. */
export function judgeBearer(text: string): void {
  if (/^ck[sra]_/.test(text)) throw refusals.tokenWrongType();
  if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(text)) throw refusals.tokenInvalid();
}

/** The token of `Authorization: Bearer`; a malformed one counts, as a bad one. */
export function bearerOf(header: string | undefined): string | undefined {
  const match = /^bearer(?: (.*))?$/i.exec(header ?? '');
  return match ? (match[1] ?? '') : undefined;
}

function attach(carrier: Carrier, next: (error?: any) => void): void {
  const { req } = carrier;
  req.session ??= carrier.session;
  req.auth = undefined;
  Object.defineProperty(req, 'auth', { configurable: true, enumerable: true, get: () => carrier.auth });
  Object.defineProperty(req, 'sessionID', {
    configurable: true,
    enumerable: true,
    get: () => carrier.sid,
  });
  req.csrfToken = () => carrier.csrfToken();
  saveAtEnd(carrier, next);
}

/** Holds the answer's end back until the session is saved, so that the next request finds it. */
function saveAtEnd(carrier: Carrier, next: (error?: any) => void): void {
  const { res } = carrier;
  const end = res.end;
  res.end = function (this: unknown, ...args: unknown[]) {
    res.end = end;
    if (!carrier.isDirty) return end.apply(res, args);
    carrier.finish().then(
      () => end.apply(res, args),
      (fault) => {
        if (res.headersSent) {
          carrier.shared.logger.warn(`cloakroom: a session was not saved: ${fault}`);
          return end.apply(res, args);
        }
        // The handler's answer said "done", and it isn't.
        for (const name of ['Content-Length', 'Content-Type', 'ETag', 'Location']) res.removeHeader(name);
        next(fault);
      },
    );
    return res;
  };
}

/** Section 5, steps 1 to 3, for every request by cookie; `csrf()` adds the token. */
function originRefusal(carrier: Carrier, settings: Settings): CloakroomError | undefined {
  const { req } = carrier;
  if (!settings.originCheck || carrier.via !== 'cookie' || isSafe(req.method)) return undefined;
  const why = checkOrigin(req, ownOrigin(req), settings.allowedOrigins);
  return why === undefined ? undefined : refusals.csrfFailed(why);
}

/** The request's own origin. */
export function ownOrigin(req: any): string {
  return settingsOf(req)?.origin ?? `${req.protocol}://${req.headers.host}`;
}

export function settingsOf(req: any): Settings | undefined {
  return req[SETTINGS];
}

/** The request's session; an application that forgot the middleware is told which line is missing. */
export function carrierOf(req: any): Carrier {
  const carrier = req[CARRIER];
  if (carrier) return carrier;
  throw new CloakroomError({
    code: 'internal',
    status: 500,
    detail: `no session middleware before ${req.method} ${req.path}; add app.use(cloakroom({ url, apiKey })) above it`,
  });
}

/** Answers a refusal: by the application's hook, by a redirect to the sign-in page, or as JSON. */
export function deny(refusal: CloakroomError, req: any, res: any, next: (error?: any) => void): void {
  const settings = settingsOf(req);
  res.setHeader('Cache-Control', 'no-store');
  if (refusal.status === 401) {
    const carrier: Carrier | undefined = req[CARRIER];
    const byCookie = bearerOf(req.headers.authorization) === undefined;
    if (carrier?.refusal === refusal && byCookie) carrier.clearCookie();
    if (settings?.onUnauthenticated) return settings.onUnauthenticated(refusal, req, res, next);
    if (settings?.signInUrl !== undefined && wantsPage(req, res)) {
      return res.redirect(302, withReturnTo(settings.signInUrl, req.originalUrl));
    }
  } else if (refusal.status === 403 && settings?.onForbidden) {
    return settings.onForbidden(refusal, req, res, next);
  }
  sendProblem(refusal, res);
}

/** `application/problem+json` (RFC 9457). */
export function sendProblem(refusal: CloakroomError, res: any): void {
  for (const [name, value] of Object.entries(refusal.headers)) res.setHeader(name, value);
  res.status(refusal.status).type('application/problem+json').send(JSON.stringify(refusal));
}

function wantsPage(req: any, res: any): boolean {
  if (req.method !== 'GET' && req.method !== 'HEAD') return false;
  res.vary('Accept');
  return req.accepts(['json', 'html']) === 'html';
}

function withReturnTo(signInUrl: string, path: string): string {
  const joint = signInUrl.includes('?') ? '&' : '?';
  return `${signInUrl}${joint}return_to=${encodeURIComponent(path)}`;
}

export type { Opened };
