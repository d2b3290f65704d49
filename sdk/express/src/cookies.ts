import type { ServerResponse } from 'node:http';

/** A session cookie found in a request. */
export type FoundCookie = { token: string } | 'none' | 'several';

const NAMES = ['__Host-session', '__Secure-session', 'session'];

const SEEN = 'cloakroom-seen';
/** Until then every process has heard of the change, or knows that it hears nothing. */
export const SEEN_SECONDS = 10;

/** Finds, sets and clears the session cookie, as the authority is set up to name it. */
export class SessionCookieJar {
  #name: string | undefined;
  #attributes: string | undefined;

  constructor(name?: string) {
    this.#name = name;
  }

  /**
   * The session cookie of a request. Until the authority has told its name (with the first cookie
   * that it hands out), a request over HTTPS may use only the names that browsers guard.
   */
  find(header: string | undefined, secure: boolean): FoundCookie {
    if (header === undefined) return 'none';
    const names = this.#name ? [this.#name] : secure ? NAMES.slice(0, 2) : NAMES;
    const pairs = pairsOf(header);
    // Beside `$Version` some parsers read quotes and commas in another way (RFC 2965).
    const isDialect = pairs.some(([name]) => name.toLowerCase() === '$version');
    const found = pairs.filter(([name]) => names.includes(name)).map(([, value]) => value);
    const [token] = found;
    const isPlain = token === undefined || (found.length === 1 && !isDialect && isAscii(token));
    if (!isPlain) return 'several';
    // Another application's cookie of the same name is nobody's session here.
    return token?.startsWith('cks_') ? { token } : 'none';
  }

  /** Hands the authority's cookie to the browser; with `maxAge` (seconds) it outlives the browser. */
  set(res: ServerResponse, line: string, maxAge?: number): void {
    const [pair = '', ...attributes] = line.split(';');
    this.#name = pair.slice(0, pair.indexOf('='));
    this.#attributes = attributes.filter((one) => !/^\s*(max-age|expires)=/i.test(one)).join(';');
    put(res, this.#name, maxAge === undefined ? line : `${line}; Max-Age=${maxAge}`);
  }

  /** The same cookie again, with another age. */
  renew(res: ServerResponse, token: string, secure: boolean, maxAge: number): void {
    const name = this.#nameFor(secure);
    put(res, name, `${name}=${token};${this.#attributesOf(name)}; Max-Age=${maxAge}`);
  }

  /** Makes the browser forget the session cookie. */
  clear(res: ServerResponse, secure: boolean): void {
    const name = this.#nameFor(secure);
    put(res, name, `${name}=;${this.#attributesOf(name)}; Max-Age=0`);
  }

  /** The version of the session's data that the browser has seen written. */
  seen(header: string | undefined): bigint | undefined {
    const pair = pairsOf(header ?? '').find(([name, value]) => name === SEEN && /^\d{1,20}$/.test(value));
    return pair && BigInt(pair[1]);
  }

  /** Lets the next request tell it. Its process asks anew if what it has is older. */
  setSeen(res: ServerResponse, version: bigint, secure: boolean): void {
    const attributes = `Path=/; HttpOnly; SameSite=Lax; Max-Age=${SEEN_SECONDS}${secure ? '; Secure' : ''}`;
    put(res, SEEN, `${SEEN}=${version}; ${attributes}`);
  }

  #nameFor(secure: boolean): string {
    return this.#name ?? (secure ? '__Host-session' : 'session');
  }

  #attributesOf(name: string): string {
    const secure = name.startsWith('__') ? ' Secure;' : '';
    return this.#attributes ?? `${secure} HttpOnly; SameSite=Lax; Path=/`;
  }
}

/**
 * The pairs of a `Cookie` header. Only blanks after a semicolon are no part of a name: browsers
 * guard `__Host-`, and not what some reader would make it of.
 */
function pairsOf(header: string): [name: string, value: string][] {
  return header.split(';').flatMap((part): [string, string][] => {
    const pair = part.replace(/^[ \t]+/, '');
    const equals = pair.indexOf('=');
    return equals < 0 ? [] : [[pair.slice(0, equals), pair.slice(equals + 1)]];
  });
}

function isAscii(text: string): boolean {
  return /^[\0-\x7f]*$/.test(text);
}

/** One line for each cookie: the last one said counts. */
function put(res: ServerResponse, name: string, line: string): void {
  const before = res.getHeader('Set-Cookie');
  const lines = (Array.isArray(before) ? before : before === undefined ? [] : [String(before)]).filter(
    (one) => !one.startsWith(`${name}=`),
  );
  res.setHeader('Set-Cookie', [...lines, line]);
  // No cache may hand one visitor's cookie to another.
  if (res.getHeader('Cache-Control') === undefined) res.setHeader('Cache-Control', 'no-store');
}
