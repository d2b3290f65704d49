import { settle, type Callback } from './callbacks.js';
import type { Carrier } from './carrier.js';
import type { Data } from './patch.js';

const RESERVED = new Set(['id', 'cookie', '__proto__']);

/** The session's cookie, in the words of express-session. */
export class SessionCookie {
  readonly path = '/';
  readonly httpOnly = true;
  readonly sameSite = 'lax';
  readonly secure: boolean;
  /** The time that was asked for, in milliseconds; null: until the browser is closed. */
  originalMaxAge: number | null = null;
  #endsAt: Date | null;
  #changed = false;

  constructor(secure: boolean, endsAt: Date | null) {
    this.secure = secure;
    this.#endsAt = endsAt;
  }

  /** Milliseconds that are left. Setting it makes the cookie outlive the browser. */
  get maxAge(): number | null {
    return this.#endsAt === null ? null : this.#endsAt.getTime() - Date.now();
  }

  set maxAge(ms: number | null) {
    this.originalMaxAge = ms;
    this.#endsAt = ms === null ? null : new Date(Date.now() + ms);
    this.#changed = true;
  }

  get expires(): Date | null {
    return this.#endsAt;
  }

  set expires(at: Date | null) {
    this.maxAge = at === null ? null : at.getTime() - Date.now();
  }

  /** Whether the application has asked for another time. */
  get isChanged(): boolean {
    return this.#changed;
  }

  toJSON(): Record<string, unknown> {
    const { originalMaxAge, expires, path, httpOnly, sameSite, secure } = this;
    return { originalMaxAge, expires, path, httpOnly, sameSite, secure };
  }
}

/**
 * `req.session`: what you set as properties is saved at the end of the request. Other requests'
 * changes to other keys are kept, and a session that has ended stays ended.
 */
export class Session {
  readonly #carrier: Carrier;
  readonly #cookie: SessionCookie;

  constructor(carrier: Carrier, data: Data, cookie: SessionCookie) {
    this.#carrier = carrier;
    this.#cookie = cookie;
    fill(this, data);
  }

  /** The session's id: not a secret, grants nothing. Empty until the session is opened. */
  get id(): string {
    return this.#carrier.sid ?? '';
  }

  get cookie(): SessionCookie {
    return this.#cookie;
  }

  /** Saves now, not at the end of the request. */
  save(callback?: Callback): Promise<void> {
    return settle(this.#carrier.save(this), callback);
  }

  /** Begins a new, empty session in place of this one, which ends when the new one is saved. */
  regenerate(callback?: Callback): Promise<void> {
    return settle(this.#carrier.regenerate(), callback);
  }

  /** Ends this session. */
  destroy(callback?: Callback): Promise<void> {
    return settle(this.#carrier.destroy(), callback);
  }

  /** Reads the session anew; unsaved changes are gone. */
  reload(callback?: Callback): Promise<void> {
    return settle(this.#carrier.reload(this), callback);
  }

  /** Counts as a use: the idle timeout begins again. Every request does this by itself. */
  touch(): this {
    this.#carrier.touch();
    return this;
  }

  resetMaxAge(): this {
    return this;
  }

  /** The data alone. */
  toJSON(): Data {
    return dataOf(this);
  }
}

// So that `{...req.session}` and JSON are the data alone.
for (const name of Object.getOwnPropertyNames(Session.prototype)) {
  Object.defineProperty(Session.prototype, name, { enumerable: false });
}

/** The properties that an application has set. */
export function dataOf(session: Session): Data {
  return JSON.parse(JSON.stringify({ ...session }));
}

/** Replaces all properties. */
export function fill(session: Session, data: Data): void {
  const properties = session as unknown as Data;
  for (const key of Object.keys(properties)) delete properties[key];
  for (const [key, value] of Object.entries(data)) {
    if (!RESERVED.has(key)) properties[key] = value;
  }
}
