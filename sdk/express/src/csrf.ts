import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

const RANDOM_BYTES = 16;
const TAG_BYTES = 32;

/** A CSRF token of the session with this key: `base64url(r ‖ HMAC-SHA-256(csrf_key, r))`. */
export function makeCsrfToken(csrfKey: string): string {
  return tokenWith(csrfKey, randomBytes(RANDOM_BYTES));
}

/** The token with these 16 random bytes. */
export function tokenWith(csrfKey: string, random: Buffer): string {
  return Buffer.concat([random, tag(csrfKey, random)]).toString('base64url');
}

/** Whether a token was made for the session with this key. */
export function checkCsrfToken(csrfKey: string, token: string): boolean {
  if (!/^[A-Za-z0-9_-]{64}$/.test(token)) return false;
  const bytes = Buffer.from(token, 'base64url');
  if (bytes.length !== RANDOM_BYTES + TAG_BYTES) return false;
  return timingSafeEqual(tag(csrfKey, bytes.subarray(0, RANDOM_BYTES)), bytes.subarray(RANDOM_BYTES));
}

function tag(csrfKey: string, random: Buffer): Buffer {
  return createHmac('sha256', Buffer.from(csrfKey, 'base64url')).update(random).digest();
}

/** GET, HEAD and OPTIONS change nothing. */
export function isSafe(method: string | undefined): boolean {
  return method === 'GET' || method === 'HEAD' || method === 'OPTIONS';
}

/**
 * Steps 2 and 3 of section 5 of the HTTP contract: where an unsafe request came from. Returns why
 * it is refused, or nothing.
 */
export function checkOrigin(
  req: IncomingMessage,
  ownOrigin: string,
  allowed: readonly string[],
): string | undefined {
  if (isRepeated(req)) return 'step 2: Sec-Fetch-Site, Origin or Referer is repeated';
  const { origin, referer } = req.headers;
  const site = req.headers['sec-fetch-site'];
  const isAllowed = origin !== undefined && allowed.includes(origin);
  if (site !== undefined) {
    if (site === 'same-origin' || site === 'none' || isAllowed) return undefined;
    return 'step 2: Sec-Fetch-Site says that another site sent this';
  }
  if (origin !== undefined) {
    if (origin === ownOrigin || isAllowed) return undefined;
    return 'step 3: the Origin is not allowed';
  }
  if (referer === undefined) return undefined;
  const from = originOf(referer);
  if (from !== undefined && (from === ownOrigin || allowed.includes(from))) return undefined;
  return 'step 3: the Referer is not allowed';
}

/** Whether the request carries anything that only browsers send. */
export function isBrowsers(req: IncomingMessage): boolean {
  const { origin, cookie } = req.headers;
  return origin !== undefined || cookie !== undefined || req.headers['sec-fetch-site'] !== undefined;
}

function isRepeated(req: IncomingMessage): boolean {
  const names = ['sec-fetch-site', 'origin', 'referer'];
  const counts = new Map<string, number>();
  for (let at = 0; at < req.rawHeaders.length; at += 2) {
    const name = (req.rawHeaders[at] ?? '').toLowerCase();
    if (names.includes(name)) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts.values()].some((count) => count > 1);
}

function originOf(url: string): string | undefined {
  try {
    const { origin } = new URL(url);
    return origin === 'null' ? undefined : origin;
  } catch {
    return undefined;
  }
}
