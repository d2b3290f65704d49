import type { Opened } from './authority.js';
import { settle, type Callback } from './callbacks.js';
import { milliseconds, type Duration } from './duration.js';
import { carrierOf } from './middleware.js';

/** Who signs in, and how. */
export interface LoginOptions {
  /** The user, by a name that never changes: a key of your own table. */
  subject: string;
  /** What guards and other backends should know: `{ email, role }`. */
  claims?: Record<string, unknown>;
  /** What the session remembers from the start; it already has what it had before. */
  data?: Record<string, unknown>;
  /** `cookie` (default), or tokens: `bearer`, or `split` (the refresh token in a cookie). */
  delivery?: 'cookie' | 'bearer' | 'split';
  /** Stays signed in for this long, also when the browser is closed. */
  maxAge?: Duration;
  /** How the user proved who they are (RFC 8176), and how far that is to be trusted. */
  amr?: string[];
  acr?: string;
  /** The user's name for the device. */
  label?: string;
  /** What `ck.epochOf` said before the password was checked: a "sign out everywhere" since wins. */
  epoch?: number;
  /** Who acts as this user. */
  actor?: string;
}

/** What a sign-in answers. */
export interface LoginResult {
  sid: string;
  /** With `bearer` and `split`. */
  access_token?: string;
  /** With `bearer`. */
  refresh_token?: string;
  expires_in?: number;
  refresh_expires_in?: number;
  token_type?: 'Bearer';
  csrf_token?: string;
}

/**
 * Signs a user in whom you have checked. With `cookie` the answer carries a fresh session cookie,
 * the session before it ends, and what it remembered stays. With `bearer` it returns tokens.
 */
export function login(req: any, options: LoginOptions, callback?: Callback<LoginResult>): Promise<LoginResult> {
  return settle(signIn(req, options), callback);
}

async function signIn(req: any, options: LoginOptions): Promise<LoginResult> {
  const carrier = carrierOf(req);
  const { maxAge, delivery = 'cookie', label: _label, ...rest } = options;
  const seconds = maxAge === undefined ? undefined : Math.max(1, Math.round(milliseconds(maxAge) / 1000));
  const grant = { ...rest, subject: String(options.subject) };
  if (seconds !== undefined) Object.assign(grant, { idle_timeout: seconds, lifetime: seconds });
  if (delivery === 'cookie') return resultOf(await carrier.login(grant, seconds, options.label));
  const opened = await carrier.issue({ ...grant, delivery }, options.label);
  for (const line of opened.set_cookie ?? []) carrier.res.append('Set-Cookie', line);
  return resultOf(opened);
}

function resultOf({ session, ...opened }: Opened): LoginResult {
  const { access_token, refresh_token, expires_in, refresh_expires_in, token_type, csrf_token } = opened;
  const all = { access_token, refresh_token, expires_in, refresh_expires_in, token_type, csrf_token };
  const said = Object.entries(all).filter(([, value]) => value !== undefined);
  return { sid: session.id, ...Object.fromEntries(said) };
}

/** Ends the request's session, with its access and refresh tokens. */
export function logout(req: any, callback?: Callback): Promise<void> {
  return settle(Promise.resolve().then(() => carrierOf(req).destroy()), callback);
}

/** Ends every session of the request's user, this one too. Returns how many. */
export function logoutEverywhere(req: any, callback?: Callback<number>): Promise<number> {
  return settle(Promise.resolve().then(() => carrierOf(req).logoutEverywhere()), callback);
}
