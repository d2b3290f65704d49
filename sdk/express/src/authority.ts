import { createHash, randomUUID } from 'node:crypto';
import { SEEN_SECONDS } from './cookies.js';
import { CloakroomError, refusals } from './errors.js';
import { Feed } from './feed.js';
import { Bounded } from './lru.js';
import type { Change, Data } from './patch.js';
import { TokenVerifier } from './tokens.js';
import { problemOf, Transport, untraced, type Logger, type Reply } from './transport.js';

/** A session as the authority shows it to holders of an API key. */
export interface SessionView {
  id: string;
  subject: string | null;
  created_at: string;
  last_seen_at: string;
  auth_time: string;
  idle_expires_at: string;
  expires_at: string;
  amr: string[];
  acr: string;
  delivery: 'cookie' | 'bearer' | 'split';
  claims: Record<string, unknown>;
  client: Record<string, string | null>;
  /** Who acts as the subject, where somebody does. */
  actor?: string | null;
  csrf_key: string;
  ended: { at: string; reason: string } | null;
}

/** An opened session with its credentials, which are told this once. */
export interface Opened {
  session: SessionView;
  session_token?: string;
  csrf_token?: string;
  set_cookie?: string[];
  token_type?: 'Bearer';
  access_token?: string;
  expires_in?: number;
  refresh_token?: string;
  refresh_expires_in?: number;
}

/** What a successful refresh answers. */
export interface TokenSet {
  access_token: string;
  refresh_token: string;
  expires_in: number;
  refresh_expires_in?: number;
  token_type: 'Bearer';
}

/** Settings of the connection to the authority. */
export interface AuthorityOptions {
  url: string;
  apiKey: string;
  audience: string;
  timeout: number;
  maxStaleness: number;
  logger: Logger;
}

/** A session's data. */
export interface Stored {
  /** As JSON text: each request reads its own copy. */
  data: string;
  /** Its entity tag. */
  version?: string | undefined;
}

/** A live session with its data, as one request sees it. */
export interface Known extends Stored {
  view: SessionView;
}

interface Cached extends Known {
  fetchedAt: number;
  idleUntil: number;
  idleSpan: number;
  touchedAt: number;
}

interface Flight {
  result: Promise<Known>;
  /** What the feed told meanwhile: an answer that may be from before is not kept. */
  heard: Set<string>;
  told: number;
}

const CACHED_MAX = 10_000;
/** A view is asked for anew after this long, whatever the feed says. */
const VIEW_MAX = 60_000;
/** Activity is reported this often, each time for at most so many sessions. */
const TOUCH_INTERVAL = 1_000;
const TOUCH_MAX = 1_000;
/** A session in use is reported after this part of its idle timeout, and at most this seldom. */
const TOUCH_SHARE = 20;
const TOUCH_SLACK_MAX = 30_000;
/** Attempts to change data under a version that others change too. */
const ATTEMPTS = 20;
/** A version is the millisecond at which it was written, and these bits more for a burst. */
const VERSION_SHIFT = 16n;
/** How far a browser's clock of cookies and ours may be apart, in milliseconds. */
const SEEN_LEEWAY = 2_000;
/** Heartbeats come every 500 ms; for the first one `ready` waits no longer than this. */
const FIRST_HEARTBEAT = 1_500;
const EVERYTHING = '*';

/** The authority as the middleware uses it: asked seldom, followed closely. */
export class Authority {
  readonly transport: Transport;
  readonly feed: Feed;
  readonly tokens: TokenVerifier;
  readonly #options: AuthorityOptions;
  readonly #views = new Bounded<string, Cached>(CACHED_MAX, (digest, cached) => {
    this.#unfile(digest, cached);
  });
  // Every view is found by its session and its subject for as long as it is kept.
  readonly #digests = new Map<string, Set<string>>();
  readonly #subjects = new Map<string, Set<string>>();
  readonly #dead = new Bounded<string, string>(CACHED_MAX);
  readonly #flights = new Map<string, Flight>();
  readonly #noted = new Bounded<string, number>(CACHED_MAX);
  readonly #touched = new Set<string>();
  #toucher: NodeJS.Timeout | undefined;
  #started: Promise<void>;

  constructor(options: AuthorityOptions) {
    this.#options = options;
    this.transport = new Transport(options);
    this.feed = new Feed(this.transport, options.logger, {
      session: (sid) => this.forget(sid),
      subject: (subject) => this.#forgetSubject(subject),
      key: (kid, state) => this.tokens.keyChanged(kid, state),
      keysUnknown: () => this.tokens.forgetKeys(),
      all: () => this.#forgetAll(),
    });
    this.tokens = new TokenVerifier(this.transport, this.feed, options.audience);
    this.#started = this.feed.start();
  }

  /** Resolves once the authority has been reached with a good key; rejects with what is wrong. */
  async ready(): Promise<void> {
    await this.#started;
    if (this.feed.refused) throw this.#keyRefused(this.feed.refused);
    await this.transport.ask({ method: 'GET', path: '/readyz' });
    // From then on requests are answered without asking.
    await this.feed.heard(FIRST_HEARTBEAT);
  }

  close(): void {
    this.feed.close();
    clearTimeout(this.#toucher);
    void this.#flush().finally(() => this.transport.close());
  }

  /** Whether endings are known here as soon as they are promised to be. */
  get isFresh(): boolean {
    return this.feed.isFresh(this.#options.maxStaleness);
  }

  /** The live session of a session cookie. Throws its refusal, or that nobody knows. */
  async lookup(token: string, seen?: bigint): Promise<Known> {
    const digest = digestOf(token);
    const atLeast = this.#isPlausible(seen) ? seen : undefined;
    const look = () => this.#lookup(digest, () => this.#fetchByToken(digest, token), atLeast);
    const known = await look();
    // A flight that others had begun may bring what was before the browser's last answer.
    return isOlder(known, atLeast) ? look() : known;
  }

  /** The live session under an id that another framework minted; `now`: not from memory. */
  lookupHandle(handle: string, now = false): Promise<Known> {
    const key = `handle ${handle}`;
    if (now) this.#drop(key);
    return this.#lookup(key, () => this.#fetchByHandle(key, handle));
  }

  /**
   * Creates or replaces the session under a handle. Under a version that has moved: 412.
   */
  async putHandle(handle: string, body: Record<string, unknown>, version?: string): Promise<Known> {
    const headers: Record<string, string> = version === undefined ? {} : { 'if-match': version };
    const path = `/admin/v1/handles/${handle}`;
    const known = knownOf(await this.#asKeyHolder({ method: 'PUT', path, body, headers }));
    this.feed.told += 1;
    this.forget(known.view.id);
    this.#drop(`handle ${handle}`);
    return known;
  }

  /** Ends the session under a handle; none is fine. */
  async endHandle(handle: string): Promise<void> {
    this.feed.told += 1;
    await this.#asKeyHolder({ method: 'DELETE', path: `/admin/v1/handles/${handle}` }, [404]);
    this.feed.told += 1;
    this.#dead.set(`handle ${handle}`, 'signed_out');
    this.#drop(`handle ${handle}`);
  }

  async #lookup(digest: string, fetch: () => Promise<Known>, atLeast?: bigint): Promise<Known> {
    const dead = this.#dead.get(digest);
    if (dead !== undefined) throw refusals.sessionEnded(dead);
    const cached = this.isFresh ? this.#views.get(digest) : undefined;
    if (cached && this.#isCurrent(cached) && !isOlder(cached, atLeast)) {
      this.#note(cached);
      return cached;
    }
    // A flight that took off before the last change may bring what was before it.
    const flight = this.#flights.get(digest);
    if (flight && flight.told === this.feed.told) return flight.result;
    return this.#fly(digest, fetch);
  }

  /** The data of a session, as it is now. */
  async data(sid: string): Promise<Stored> {
    const path = `/admin/v1/sessions/${sid}/data`;
    const { json, headers } = await this.transport.ask({ method: 'GET', path });
    return { data: JSON.stringify(json), version: headers.etag };
  }

  /** Whose access token this is, by asking. */
  async verifyByAsking(token: string): Promise<SessionView> {
    try {
      const body = { token };
      const { json } = await this.transport.ask({ method: 'POST', path: '/admin/v1/sessions/verify', body });
      return json.session;
    } catch (refusal) {
      throw await this.#ours(refusal);
    }
  }

  /** Opens a session. */
  async open(body: Record<string, unknown>): Promise<Opened> {
    // A visitor's successor is told to nobody but this call, which may have to be sent twice.
    const isVisitors = body['subject'] === null && body['replaces'] !== undefined;
    const headers: Record<string, string> = isVisitors ? { 'idempotency-key': randomUUID() } : {};
    const { json } = await this.#asKeyHolder({ method: 'POST', path: '/admin/v1/sessions', body, headers });
    return json;
  }

  /** How often a subject's sessions were all ended; one that never had any has zero. */
  async epochOf(subject: string): Promise<number> {
    const path = `/admin/v1/subjects/${encodeURIComponent(subject)}`;
    const { status, json } = await this.#asKeyHolder({ method: 'GET', path }, [404]);
    return status === 404 ? 0 : json.subject.epoch;
  }

  /** Ends a session; one that is over already is fine. */
  async end(sid: string): Promise<void> {
    const path = `/admin/v1/sessions/${sid}?reason=signed_out`;
    await this.#asKeyHolder({ method: 'DELETE', path }, [404]);
    this.feed.noteEnd(sid, 'signed_out');
  }

  /** Ends every session of a subject. */
  async endAll(subject: string): Promise<number> {
    const path = `/admin/v1/subjects/${encodeURIComponent(subject)}/sessions`;
    const { json } = await this.#asKeyHolder({ method: 'DELETE', path });
    this.feed.noteRaised(subject);
    return json.revoked;
  }

  /**
   * Changes a session's data; other keys that others change meanwhile are left alone. Returns the
   * version that it has then.
   */
  async change(sid: string, change: Change): Promise<string | undefined> {
    const path = `/admin/v1/sessions/${sid}/data`;
    try {
      if ('patch' in change) {
        const reply = await this.transport.ask({ method: 'PATCH', path, body: change.patch });
        return reply.headers.etag;
      }
      return await this.#changeByVersion(path, change.apply);
    } catch (refusal) {
      throw await this.#ours(refusal);
    } finally {
      this.feed.told += 1;
      this.forget(sid);
    }
  }

  /** Rotates a refresh token. */
  async refresh(refreshToken: string): Promise<TokenSet> {
    const form = { grant_type: 'refresh_token', refresh_token: refreshToken };
    const reply = await this.transport.ask({ method: 'POST', path: '/oauth2/token', form, expect: [400, 401] });
    if (reply.status === 200) return reply.json;
    throw refreshRefusal(reply);
  }

  /** Drops what is known of a session. */
  forget(sid: string): void {
    for (const flight of this.#flights.values()) flight.heard.add(sid);
    for (const digest of [...(this.#digests.get(sid) ?? [])]) this.#drop(digest);
  }

  /** Notes a use of a session that no lookup saw. */
  noteUse(sid: string): void {
    this.#noteUse(sid);
  }

  /** Notes a use of a session by an access token, which was verified without asking. */
  noteAccess(sid: string): void {
    const now = Date.now();
    if (now - (this.#noted.get(sid) ?? 0) < TOUCH_SLACK_MAX) return;
    this.#noted.set(sid, now);
    this.#noteUse(sid);
  }

  /** Notes a use of the session under a handle. */
  noteHandle(handle: string): void {
    const cached = this.#views.get(`handle ${handle}`);
    // A session that was just read was just noted.
    if (cached) this.#note(cached);
    else this.#noteUse(`handle ${handle}`);
  }

  #noteUse(use: string): void {
    this.#touched.add(use);
    this.#toucher ??= setTimeout(() => void untraced(() => this.#flush()), TOUCH_INTERVAL).unref();
  }

  #forgetSubject(subject: string): void {
    for (const flight of this.#flights.values()) flight.heard.add(`subject ${subject}`);
    for (const digest of [...(this.#subjects.get(subject) ?? [])]) this.#drop(digest);
  }

  #forgetAll(): void {
    for (const flight of this.#flights.values()) flight.heard.add(EVERYTHING);
    this.#views.clear();
    this.#digests.clear();
    this.#subjects.clear();
  }

  /**
   * Whether a browser can have seen this version just now. The cookie that says so is anybody's
   * to set, and a version that never comes would make every request ask.
   */
  #isPlausible(seen: bigint | undefined): boolean {
    if (seen === undefined) return false;
    const age = this.feed.now() - Number(seen >> VERSION_SHIFT);
    return age > -SEEN_LEEWAY && age < SEEN_SECONDS * 1000 + SEEN_LEEWAY;
  }

  #isCurrent(cached: Cached): boolean {
    const now = Date.now();
    const live = now < cached.idleUntil && now < Date.parse(cached.view.expires_at);
    return live && performance.now() - cached.fetchedAt < VIEW_MAX;
  }

  #fly(digest: string, fetch: () => Promise<Known>): Promise<Known> {
    const heard = new Set<string>();
    const result = this.#fetch(digest, fetch, heard).finally(() => {
      if (this.#flights.get(digest) === flight) this.#flights.delete(digest);
    });
    const flight: Flight = { result, heard, told: this.feed.told };
    this.#flights.set(digest, flight);
    return result;
  }

  async #fetch(digest: string, fetch: () => Promise<Known>, heard: Set<string>): Promise<Known> {
    for (let attempt = 1; ; attempt += 1) {
      heard.clear();
      const known = await fetch();
      const { id, subject } = known.view;
      const late = heard.has(id) || heard.has(`subject ${subject}`) || heard.has(EVERYTHING);
      if (late && attempt < 3) continue;
      const ended = this.feed.endOf(id);
      if (ended !== undefined) throw this.#over(digest, ended);
      if (!late) this.#keep(digest, known);
      return known;
    }
  }

  async #fetchByToken(digest: string, token: string): Promise<Known> {
    const view = await this.#verify(digest, token);
    return { view, ...(await this.#dataOf(digest, view)) };
  }

  async #fetchByHandle(digest: string, handle: string): Promise<Known> {
    try {
      return knownOf(await this.#asKeyHolder({ method: 'GET', path: `/admin/v1/handles/${handle}` }));
    } catch (refusal) {
      throw this.#remember(digest, refusal);
    }
  }

  async #verify(digest: string, token: string): Promise<SessionView> {
    try {
      return await this.verifyByAsking(token);
    } catch (refusal) {
      throw this.#remember(digest, refusal);
    }
  }

  async #dataOf(digest: string, view: SessionView): Promise<Stored> {
    try {
      return await this.data(view.id);
    } catch (refusal) {
      if (refusal instanceof CloakroomError && refusal.code === 'not_found') throw this.#over(digest);
      throw this.#remember(digest, refusal);
    }
  }

  /** An ended session never lives again, so it needn't be asked for again. */
  #remember(digest: string, refusal: unknown): unknown {
    if (refusal instanceof CloakroomError && refusal.code === 'session_ended') {
      this.#dead.set(digest, refusal.reason ?? '');
    }
    return refusal;
  }

  #over(digest: string, reason = ''): CloakroomError {
    this.#dead.set(digest, reason);
    return refusals.sessionEnded(reason);
  }

  #keep(digest: string, known: Known): void {
    const { view } = known;
    const idleUntil = Date.parse(view.idle_expires_at);
    const idleSpan = idleUntil - Date.parse(view.last_seen_at);
    const touchedAt = Date.now();
    const fetchedAt = performance.now();
    this.#drop(digest);
    this.#views.set(digest, { ...known, fetchedAt, idleUntil, idleSpan, touchedAt });
    add(this.#digests, view.id, digest);
    if (view.subject !== null) add(this.#subjects, view.subject, digest);
  }

  #drop(digest: string): void {
    const cached = this.#views.get(digest);
    if (!cached) return;
    this.#views.delete(digest);
    this.#unfile(digest, cached);
  }

  #unfile(digest: string, { view }: Cached): void {
    remove(this.#digests, view.id, digest);
    if (view.subject !== null) remove(this.#subjects, view.subject, digest);
  }

  #note(cached: Cached): void {
    const now = Date.now();
    const slack = Math.min(TOUCH_SLACK_MAX, cached.idleSpan / TOUCH_SHARE);
    if (now - cached.touchedAt < slack) return;
    cached.touchedAt = now;
    this.noteUse(cached.view.id);
  }

  async #flush(): Promise<void> {
    this.#toucher = undefined;
    const uses = [...this.#touched].slice(0, TOUCH_MAX);
    if (uses.length === 0) return;
    for (const use of uses) this.#touched.delete(use);
    const at = Date.now();
    const handles = uses.filter((use) => use.startsWith('handle ')).map((use) => use.slice(7));
    const sids = uses.filter((use) => !use.startsWith('handle '));
    try {
      await this.transport.ask({
        method: 'POST',
        path: '/admin/v1/sessions/touch',
        body: { sids, handles },
      });
      for (const sid of sids) this.#slid(sid, at);
    } catch {
      // They were used all the same: told with the next batch.
      for (const use of uses) this.#touched.add(use);
    }
    if (this.#touched.size > 0) {
      this.#toucher ??= setTimeout(() => void untraced(() => this.#flush()), TOUCH_INTERVAL).unref();
    }
  }

  /** The authority has noted the use: the idle timeout runs from there. */
  #slid(sid: string, at: number): void {
    for (const digest of this.#digests.get(sid) ?? []) {
      const cached = this.#views.get(digest);
      if (cached) cached.idleUntil = Math.max(cached.idleUntil, at + cached.idleSpan);
    }
  }

  async #changeByVersion(path: string, apply: (current: Data) => Data): Promise<string | undefined> {
    for (let attempt = 1; ; attempt += 1) {
      const read = await this.transport.ask({ method: 'GET', path });
      // Version zero: nothing was ever stored. There is no condition for that but to try.
      const version = read.headers.etag;
      const headers: Record<string, string> = version ? { 'if-match': version } : {};
      const body = apply(read.json);
      try {
        return (await this.transport.ask({ method: 'PUT', path, body, headers })).headers.etag;
      } catch (refusal) {
        const moved = refusal instanceof CloakroomError && refusal.status === 412;
        if (!moved || attempt >= ATTEMPTS) throw refusal;
        await apart(attempt);
      }
    }
  }

  async #asKeyHolder(ask: Parameters<Transport['ask']>[0], expect: number[] = []): Promise<Reply> {
    try {
      return await this.transport.ask({ ...ask, expect });
    } catch (refusal) {
      throw await this.#ours(refusal);
    }
  }

  /**
   * A 401 may be about the session or about our own API key, and a user must not be signed out
   * for the latter: where both would be told in the same words, the key is tried.
   */
  async #ours(refusal: unknown): Promise<unknown> {
    if (!(refusal instanceof CloakroomError)) return refusal;
    if (refusal.code === 'insufficient_scope') return this.#keyRefused(refusal);
    if (refusal.status !== 401 || refusal.code === 'session_ended') return refusal;
    try {
      await this.transport.ask({ method: 'GET', path: '/admin/v1/sessions?limit=1' });
      return refusal;
    } catch (fault) {
      const about = fault as CloakroomError;
      return about.status === 401 || about.status === 403 ? this.#keyRefused(about) : fault;
    }
  }

  #keyRefused(refusal: CloakroomError): CloakroomError {
    return new CloakroomError(
      {
        code: 'api_key_refused',
        status: 503,
        detail: `the authority at ${this.#options.url} refuses this API key: ${refusal.detail}`,
        requestId: refusal.requestId,
      },
      { cause: refusal },
    );
  }
}

function knownOf({ json, headers }: Reply): Known {
  return { view: json.session, data: JSON.stringify(json.data), version: headers.etag };
}

/** Those who collided shouldn't again. */
export function apart(attempt: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.random() * 5 * attempt));
}

/** The number in an entity tag: of two versions of one session's data the later is greater. */
export function versionOf(tag: string | undefined): bigint | undefined {
  const match = /^"(\d{1,20})"$/.exec(tag ?? '');
  return match ? BigInt(match[1] ?? 0) : undefined;
}

function isOlder({ version }: Stored, atLeast: bigint | undefined): boolean {
  return atLeast !== undefined && (versionOf(version) ?? 0n) < atLeast;
}

function digestOf(token: string): string {
  return createHash('sha256').update(token).digest('base64url');
}

function add(index: Map<string, Set<string>>, key: string, digest: string): void {
  const known = index.get(key);
  if (known) known.add(digest);
  else index.set(key, new Set([digest]));
}

function remove(index: Map<string, Set<string>>, key: string, digest: string): void {
  const known = index.get(key);
  known?.delete(digest);
  if (known?.size === 0) index.delete(key);
}

/** RFC 6749 has one error for all bad refresh tokens; without a `code` the description tells them apart. */
const REFRESH_REFUSALS: Record<string, string> = {
  'the token has expired': 'token_expired',
  'the token is invalid': 'token_invalid',
  'a credential of another type belongs here': 'token_wrong_type',
  'the refresh token was used before; the session has been ended': 'refresh_token_reused',
  'the session has ended': 'session_ended',
};

/** Why a refresh was refused. */
export function refreshRefusal(reply: Reply): CloakroomError {
  const { error, error_description: detail, code: told, reason } = reply.json ?? {};
  if (error !== 'invalid_grant') return problemOf(reply);
  const code = told ?? REFRESH_REFUSALS[detail] ?? 'token_invalid';
  const requestId = problemOf(reply).requestId;
  return new CloakroomError({ code, status: 401, detail, reason, requestId });
}
