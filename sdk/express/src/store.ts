import { createHash } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { createRequire } from 'node:module';
import path from 'node:path';
import { apart, Authority, type Known } from './authority.js';
import { settle, type Callback } from './callbacks.js';
import { milliseconds, type Duration } from './duration.js';
import { CloakroomError } from './errors.js';
import { changeBetween, merge, type Data } from './patch.js';
import type { Logger } from './transport.js';

/** A store of express-session, as far as one is moved from. */
export interface OldStore {
  get(sid: string, callback: (error: any, session?: any) => void): unknown;
  destroy(sid: string, callback?: (error?: any) => void): unknown;
}

/** Settings of {@link CloakroomStore}. */
export interface CloakroomStoreOptions {
  /** The authority's admin listener. Default: the variable `CLOAKROOM_URL`. */
  url?: string;
  /** Needs the scopes `sessions:read` and `sessions:write`. Default: `CLOAKROOM_API_KEY`. */
  apiKey?: string;
  /** Put before each id, for several applications with one authority. Default none. */
  prefix?: string;
  /**
   * Seconds that an unused session lives, or how to tell. Default: what is left of its cookie,
   * or a day if that ends with the browser.
   */
  ttl?: number | ((session: any) => number);
  /** Unchanged sessions don't live longer by being used. */
  disableTouch?: boolean;
  /** Whose a session is; for Passport `s => s.passport?.user`. */
  subject?: (session: any) => unknown;
  /** Where sessions were kept before: each moves with its next request. */
  fallback?: OldStore;
  timeout?: Duration;
  maxStaleness?: Duration;
  logger?: Logger;
}

const DAY = 86_400;
const WEEK = 7 * DAY;
const LIFETIME_MAX = 365 * DAY;
/** Attempts to save under a version that others change too. */
const ATTEMPTS = 20;

/** What a session was when it was read, for telling what a request has changed. */
interface Origin {
  data: Data;
  version: string | undefined;
}

/**
 * A store for express-session. Every method takes a callback or returns a promise. A session that
 * has ended stays ended: a `set` after its `destroy` changes nothing.
 */
export class CloakroomStore extends EventEmitter {
  readonly #authority: Authority;
  readonly #options: CloakroomStoreOptions;
  readonly #logger: Logger;
  readonly #origins = new WeakMap<object, Origin>();
  #moving = new Map<string, Promise<any>>();
  /** Set by express-session. */
  generate!: (req: any) => void;
  /** Saves that came after the end of their session, and were dropped. */
  lateSaves = 0;

  constructor(options: CloakroomStoreOptions = {}) {
    super();
    const url = options.url ?? process.env['CLOAKROOM_URL'];
    const apiKey = options.apiKey ?? process.env['CLOAKROOM_API_KEY'];
    if (!url) throw new TypeError('CloakroomStore: no url (option `url`, or CLOAKROOM_URL)');
    if (!apiKey) throw new TypeError('CloakroomStore: no API key (option `apiKey`, or CLOAKROOM_API_KEY)');
    this.#options = options;
    this.#logger = options.logger ?? console;
    this.#authority = new Authority({
      url,
      apiKey,
      audience: 'cloakroom',
      timeout: milliseconds(options.timeout ?? '2s'),
      maxStaleness: milliseconds(options.maxStaleness ?? '2s'),
      logger: this.#logger,
    });
  }

  /** Resolves when the authority was reached and takes the API key; rejects with what is wrong. */
  ready(): Promise<void> {
    return this.#authority.ready();
  }

  /** Stops following the authority. */
  close(): void {
    this.#authority.close();
  }

  /** The session, or null. */
  get(sid: string, callback?: Callback<any>): Promise<any> {
    return settle(this.#get(sid), callback);
  }

  set(sid: string, session: any, callback?: Callback): Promise<void> {
    return settle(this.#set(sid, session), callback);
  }

  destroy(sid: string, callback?: Callback): Promise<void> {
    return settle(this.#destroy(sid), callback);
  }

  /** Tells that the session was used. Uses are reported together, once a second. */
  touch(sid: string, _session?: any, callback?: Callback): Promise<void> {
    return settle(this.#touch(sid), callback);
  }

  /** For express-session: the session of a request is over, another begins. */
  regenerate(req: any, callback: Callback): void {
    this.destroy(req.sessionID, (fault) => {
      this.generate(req);
      callback(fault);
    });
  }

  /** For express-session: reads a session for use outside a request of its own. */
  load(sid: string, callback: Callback<any>): void {
    this.get(sid, (fault, session) => {
      if (fault || !session) return callback(fault ?? null, undefined);
      callback(null, this.createSession({ sessionID: sid, sessionStore: this }, session));
    });
  }

  /** For express-session: makes what was read the session of a request. */
  createSession(req: any, read: any): any {
    const { Session, Cookie } = expressSession();
    const origin = this.#origins.get(read);
    const { cookie: kept = {}, ...data } = read;
    const cookie = new Cookie(kept);
    if (typeof kept.expires === 'string') cookie.expires = new Date(kept.expires);
    cookie.originalMaxAge = kept.originalMaxAge;
    req.session = new Session(req, { ...data, cookie });
    if (origin) this.#origins.set(req.session, origin);
    return req.session;
  }

  async #get(sid: string): Promise<any> {
    const known = await this.#find(sid);
    if (known === 'ended') return null;
    if (known) return this.#read(known);
    return this.#options.fallback ? this.#move(sid, this.#options.fallback) : null;
  }

  /** The session under an id; it may never have been, or be over. */
  async #find(sid: string): Promise<Known | 'ended' | undefined> {
    try {
      // From memory another process's last answer might be missing: a store is asked each time.
      return await this.#authority.lookupHandle(this.#handle(sid), true);
    } catch (refusal) {
      if (hasCode(refusal, 'session_ended')) return 'ended';
      if (hasCode(refusal, 'not_found')) return undefined;
      throw refusal;
    }
  }

  #read(known: Known): any {
    const session = JSON.parse(known.data);
    this.#origins.set(session, { data: JSON.parse(known.data), version: known.version });
    return session;
  }

  async #set(sid: string, session: any): Promise<void> {
    const ttl = this.#ttl(session);
    if (ttl <= 0) return this.#destroy(sid);
    const data: Data = JSON.parse(JSON.stringify(session));
    const body: Record<string, unknown> = { idle_timeout: ttl, lifetime: Math.max(ttl, WEEK) };
    const subject = this.#options.subject?.(session);
    if (subject !== undefined && subject !== null) body['subject'] = String(subject);
    try {
      const known = await this.#save(sid, body, data, this.#origins.get(session));
      this.#origins.set(session, { data: JSON.parse(known.data), version: known.version });
    } catch (refusal) {
      // Somebody signed out while the request ran: what it wanted to keep goes with the session.
      if (!hasCode(refusal, 'session_ended')) throw refusal;
      this.lateSaves += 1;
    }
  }

  /** Writes what this request has changed onto what is there now. */
  async #save(sid: string, body: Record<string, unknown>, data: Data, origin?: Origin): Promise<Known> {
    const handle = this.#handle(sid);
    if (!origin?.version) return this.#authority.putHandle(handle, { ...body, data });
    const change = changeBetween(origin.data, data);
    let wanted = data;
    let version: string | undefined = origin.version;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#authority.putHandle(handle, { ...body, data: wanted }, version);
      } catch (refusal) {
        if (!hasCode(refusal, 'precondition_failed') || attempt >= ATTEMPTS) throw refusal;
        await apart(attempt);
      }
      const now = await this.#find(sid);
      // Gone without a trace: there is nothing that others could have changed.
      if (now === undefined || now === 'ended') {
        version = undefined;
        continue;
      }
      const current: Data = JSON.parse(now.data);
      if (change === undefined) wanted = current;
      else wanted = 'patch' in change ? merge(current, change.patch) : change.apply(current);
      version = now.version;
    }
  }

  async #destroy(sid: string): Promise<void> {
    await this.#authority.endHandle(this.#handle(sid));
    const { fallback } = this.#options;
    if (fallback) await asPromise((done) => fallback.destroy(sid, done));
  }

  async #touch(sid: string): Promise<void> {
    if (this.#options.disableTouch) return;
    this.#authority.noteHandle(this.#handle(sid));
  }

  /** Brings a session here from where it was; both must not be used any more afterwards. */
  async #move(sid: string, fallback: OldStore): Promise<any> {
    const moving = this.#moving.get(sid);
    if (moving) return this.#joined(await moving);
    const move = this.#moveOnce(sid, fallback).finally(() => this.#moving.delete(sid));
    this.#moving.set(sid, move);
    return this.#joined(await move);
  }

  #joined(known: Known | undefined): any {
    return known ? this.#read(known) : null;
  }

  async #moveOnce(sid: string, fallback: OldStore): Promise<Known | undefined> {
    const old: any = await asPromise((done) => fallback.get(sid, done));
    // Another process may have moved it since we looked here.
    const moved = await this.#find(sid);
    if (moved === 'ended') return undefined;
    if (moved || !old) return moved;
    await this.#set(sid, old);
    const now = await this.#find(sid);
    try {
      await asPromise((done) => fallback.destroy(sid, done));
    } catch (fault) {
      this.#logger.warn(`cloakroom: a session has moved but stays in the old store too: ${fault}`);
    }
    return now === 'ended' ? undefined : now;
  }

  #ttl(session: any): number {
    const { ttl } = this.#options;
    if (typeof ttl === 'function') return whole(ttl(session));
    const expires = session?.cookie?.expires;
    if (expires) return whole((new Date(expires).getTime() - Date.now()) / 1000);
    return whole(ttl ?? DAY);
  }

  #handle(sid: string): string {
    return createHash('sha256').update(`${this.#options.prefix ?? ''}${sid}`).digest('base64url');
  }
}

function whole(seconds: number): number {
  return Math.min(LIFETIME_MAX, Math.ceil(seconds));
}

function hasCode(refusal: unknown, code: string): boolean {
  return refusal instanceof CloakroomError && refusal.code === code;
}

/** For stores that call back, that return promises, and that do both. */
function asPromise<T>(call: (done: (fault?: any, value?: T) => void) => unknown): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const done = (fault?: any, value?: T) => (fault ? reject(fault) : resolve(value));
    const returned = call(done);
    if (returned instanceof Promise) returned.then((value) => value !== undefined && resolve(value), reject);
  });
}

/** The application's own express-session: it is there, or nobody would call this. */
function expressSession(): { Session: new (req: any, data: any) => any; Cookie: new (options: any) => any } {
  const here = createRequire(path.join(process.cwd(), 'cloakroom-express.js'));
  const paths = [...(process.argv[1] ? [path.dirname(process.argv[1])] : []), process.cwd()];
  return here(here.resolve('express-session', { paths }));
}
