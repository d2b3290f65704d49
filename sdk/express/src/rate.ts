import { isIPv6 } from 'node:net';
import { Bounded } from './lru.js';

const COUNTED_MAX = 100_000;

/** What becomes of one request. */
export interface Admission {
  admitted: boolean;
  /** How many more would go through right now. */
  remaining: number;
  /** Whole seconds until one goes through again. */
  retryAfter: number;
}

/** So many at once, then one for each share of the window that passes (GCRA), for each key. */
export class Limiter {
  readonly limit: number;
  readonly window: number;
  readonly #arrivals = new Bounded<string, number>(COUNTED_MAX);

  constructor(limit: number, window: number) {
    if (!Number.isInteger(limit) || limit < 1) throw new TypeError('the limit is a whole number from 1');
    this.limit = limit;
    this.window = window;
  }

  admit(key: string, now: number): Admission {
    const share = this.window / this.limit;
    const arrival = Math.min(Math.max(this.#arrivals.get(key) ?? 0, now), now + this.window);
    const next = arrival + share;
    const beyond = next - now - this.window;
    // A thousandth of a millisecond: shares of a window need not be whole.
    if (beyond > 0.001) {
      return { admitted: false, remaining: 0, retryAfter: Math.max(1, Math.ceil(beyond / 1000)) };
    }
    this.#arrivals.set(key, next);
    const remaining = Math.floor((this.window - (next - now)) / share + 0.001);
    return { admitted: true, remaining, retryAfter: Math.ceil((next - now) / 1000) };
  }
}

/** The network of an address: an IPv6 subscriber has a /64 to choose from. */
export function networkOf(address: string | undefined): string {
  if (address === undefined) return 'unknown';
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '');
  if (!isIPv6(plain)) return plain;
  const [head = '', tail] = plain.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const missing = tail === undefined ? 0 : 8 - left.length - right.length;
  const groups = [...left, ...Array.from({ length: Math.max(0, missing) }, () => '0'), ...right];
  return groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':');
}
