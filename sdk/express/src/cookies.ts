import type { ServerResponse } from 'node:http';

/** A session cookie found in a request. */
export type FoundCookie = { token: string } | 'none' | 'several';

const NAMES = ['__Host-session', '__Secure-session', 'session'];

const SEEN = 'cloakroom-seen';
/** Until then every process has heard of the change, or knows that it hears nothing. */
const SEEN_SECONDS = 10;

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
    // Beside `$Version` some parsers read quotes and commas in another way (RFC 2965).
    const isDialect = /(?:^|;)\s*\$version\s*=/i.test(header);
    const found = new Set<string>();
    let count = 0;
    for (const pair of header.split(';')) {
      const equals = pair.indexOf('=');
      if (equals < 0 || !names.includes(pair.slice(0, equals).trim())) continue;
      found.add(pair.slice(equals + 1).trim());
      count += 1;
    }
    if (count > 1 || (count === 1 && isDialect)) return 'several';
    const [token] = found;
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
    const match = new RegExp(`(?:^|;)\\s*${SEEN}=(\\d{1,20})\\s*(?:;|$)`).exec(header ?? '');
    return match ? BigInt(match[1] ?? 0) : undefined;
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
