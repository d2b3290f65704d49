import { versionOf, type Known, type Opened, type SessionView, type Stored } from './authority.js';
import type { SessionCookieJar } from './cookies.js';
import { makeCsrfToken } from './csrf.js';
import { CloakroomError, refusals } from './errors.js';
import { changeBetween, isEqual, type Change, type Data } from './patch.js';
import { dataOf, fill, Session, SessionCookie } from './session.js';
import type { Logger } from './transport.js';

/** Who is behind a request. */
export interface Auth {
  /** The session's id. */
  sid: string;
  /** The user, by the name that the sign-in gave. */
  subject: string;
  claims: Record<string, unknown>;
  /** When the user last proved who they are. */
  authTime: Date;
  amr: string[];
  acr: string;
  /** Who acts as the user, where somebody does: an impersonation. */
  actor?: string | undefined;
  via: 'cookie' | 'bearer';
}

/** What the middleware needs of an authority; the one for tests keeps it all in memory. */
export interface Backend {
  lookup(token: string, atLeast?: bigint): Promise<Known>;
  access(token: string): Promise<Omit<Auth, 'via'>>;
  data(sid: string): Promise<Stored>;
  open(body: Record<string, unknown>): Promise<Opened>;
  end(sid: string): Promise<void>;
  endAll(subject: string): Promise<number>;
  change(sid: string, change: Change): Promise<string | undefined>;
  noteUse(sid: string): void;
  /** A session was replaced by another: nothing may be answered from memory of it any more. */
  noteReplaced(sid: string): void;
}

/** What all requests of one middleware share. */
export interface Shared {
  backend: Backend;
  jar: SessionCookieJar;
  logger: Logger;
  subject: ((data: any) => unknown) | undefined;
  claims: ((data: any) => Record<string, unknown>) | undefined;
  /** Saves that met an ended session and were dropped. */
  lateSaves: number;
}

/** What a sign-in may say besides who it is. */
export interface Grant {
  subject: string | null;
  claims?: Record<string, unknown> | undefined;
  [member: string]: unknown;
}

/** How a session is opened. */
interface Opening {
  /** All that it is to remember. */
  data: Data;
  /** Whether the authority takes the former one's data along, and is told the changes only. */
  carried: boolean;
  /** Seconds that the cookie outlives the browser. */
  maxAge: number | undefined;
  label?: string | undefined;
}

/** One request's session, from the credential to the answer. */
export class Carrier {
  readonly shared: Shared;
  readonly req: any;
  readonly res: any;
  /** Why the request's credential counts for nothing, if it brought one. */
  refusal: CloakroomError | undefined;
  auth: Auth | undefined;
  sid: string | undefined;
  #token: string | undefined;
  #view: SessionView | undefined;
  #session: Session;
  #baseline: Data = {};
  /** The session that a new one will take the place of. */
  #former: { sid: string; token: string } | undefined;
  #isOver = false;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(shared: Shared, req: any, res: any) {
    this.shared = shared;
    this.req = req;
    this.res = res;
    this.#session = this.#fresh({});
  }

  get via(): 'cookie' | 'bearer' | undefined {
    return this.#token !== undefined ? 'cookie' : this.auth?.via;
  }

  get csrfKey(): string | undefined {
    return this.#view?.csrf_key;
  }

  /** The session of a cookie that was found good. */
  adopt(token: string, known: Known): void {
    this.#take(token, known.view);
    this.#baseline = JSON.parse(known.data);
    this.#renew(JSON.parse(known.data));
  }

  /** The session of an access token. Its data is read only when asked for, by `reload`. */
  adoptBearer(auth: Omit<Auth, 'via'>): void {
    this.auth = { ...auth, via: 'bearer' };
    this.sid = auth.sid;
    this.req.user = { ...auth.claims, id: auth.subject };
    this.#renew({});
  }

  /** A CSRF token of the session, which is opened if there is none yet. */
  async csrfToken(): Promise<string> {
    // A request by bearer token needs none; the same page may be asked for both ways.
    if (this.auth?.via === 'bearer') return '';
    if (this.#view === undefined) await this.#queued(() => this.#open(dataOf(this.#session)));
    return makeCsrfToken(this.#view?.csrf_key ?? '');
  }

  save(session: Session): Promise<void> {
    return this.#queued(() => this.#save(session));
  }

  async regenerate(): Promise<void> {
    if (this.auth?.via === 'bearer') throw new TypeError('a bearer token has its session for good');
    if (this.sid !== undefined && this.#token !== undefined) {
      this.#former ??= { sid: this.sid, token: this.#token };
    }
    this.#leave();
    this.#renew({});
  }

  destroy(): Promise<void> {
    return this.#queued(async () => {
      const sid = this.sid ?? this.#former?.sid;
      if (sid !== undefined) await this.shared.backend.end(sid);
      this.#signedOut();
    });
  }

  async reload(session: Session): Promise<void> {
    if (this.sid === undefined) throw refusals.sessionEnded();
    const { data } = await this.shared.backend.data(this.sid);
    this.#baseline = JSON.parse(data);
    fill(session, JSON.parse(data));
  }

  touch(): void {
    if (this.sid !== undefined) this.shared.backend.noteUse(this.sid);
  }

  /** Opens the session of a user who was checked by the application; the present one ends. */
  login(grant: Grant, maxAge: number | undefined, label?: string): Promise<Opened> {
    return this.#queued(async () => {
      Object.assign(this.#session, grant['data']);
      const data = this.#dataFor(grant.subject);
      // What other requests have put into the old session meanwhile comes along, unless a key was
      // removed here, which would come along too, or it is somebody else's.
      const removed = Object.keys(this.#baseline).some((key) => !(key in data));
      const carried = this.#token !== undefined && !removed && !this.#isOthers(grant.subject);
      const body = { ...grant, data: carried ? this.#changes() : data };
      const opened = await this.#openWith(body, { data, carried, maxAge, label });
      this.#baseline = data;
      if (!isEqual(dataOf(this.#session), data)) fill(this.#session, data);
      return opened;
    });
  }

  /**
   * What a new session of this subject remembers: a visitor's data is the user's from then on,
   * and that of whoever was signed in before is nobody else's.
   */
  #dataFor(subject: string | null): Data {
    return this.#isOthers(subject) ? this.#changes() : dataOf(this.#session);
  }

  /** Whether the present session is a user's, and not this one's. */
  #isOthers(subject: string | null): boolean {
    const former = this.#view?.subject ?? null;
    return former !== null && former !== subject;
  }

  /** The keys that this request has set. */
  #changes(): Data {
    const data = Object.entries(dataOf(this.#session));
    return Object.fromEntries(data.filter(([key, value]) => !isEqual(value, this.#baseline[key])));
  }

  /** A session beside the request's own, for a program that gets tokens. */
  issue(grant: Grant, label?: string): Promise<Opened> {
    return this.shared.backend.open({ ...grant, client: this.#client(label) });
  }

  async logoutEverywhere(): Promise<number> {
    const { subject, actor } = this.auth ?? {};
    if (subject === undefined) throw this.refusal ?? refusals.credentialsRequired();
    if (actor !== undefined) throw refusals.onBehalf();
    const revoked = await this.shared.backend.endAll(subject);
    this.#signedOut();
    return revoked;
  }

  /** Makes the browser forget a cookie that is no good. */
  clearCookie(): void {
    if (!this.res.headersSent) this.shared.jar.clear(this.res, this.req.secure === true);
  }

  /** Whether the end of the request has something to write down. */
  get isDirty(): boolean {
    if (this.#isOver) return false;
    if (this.#former !== undefined) return true;
    if (this.#session.cookie.isChanged && this.#token !== undefined) return true;
    const data = dataOf(this.#session);
    if (this.sid === undefined) return Object.keys(data).length > 0;
    return changeBetween(this.#baseline, data) !== undefined || this.#isAnothers(data);
  }

  /** At the end of the request: writes down what has changed. */
  async finish(): Promise<void> {
    try {
      await this.#queued(async () => {
        if (this.#isOver) return;
        const empty = Object.keys(dataOf(this.#session)).length === 0;
        if (this.sid === undefined && empty) {
          if (this.#former) await this.shared.backend.end(this.#former.sid);
          this.#signedOut();
        } else {
          await this.#save(this.#session);
        }
        this.#renewCookie();
      });
    } catch (refusal) {
      // Somebody signed out while this request ran: what it wanted to keep goes with the session.
      if (!isEnd(refusal)) throw refusal;
      this.shared.lateSaves += 1;
      this.clearCookie();
    }
  }

  async #save(session: Session): Promise<void> {
    if (session !== this.#session || this.#isOver) return;
    const data = dataOf(session);
    if (this.sid === undefined || this.#isAnothers(data)) return this.#open(data);
    const change = changeBetween(this.#baseline, data);
    if (change === undefined) return;
    const version = versionOf(await this.shared.backend.change(this.sid, change));
    this.#baseline = data;
    // Another process may be asked next, and hear of this a moment later.
    if (version !== undefined && this.#token !== undefined && !this.res.headersSent) {
      this.shared.jar.setSeen(this.res, version, this.req.secure === true);
    }
  }

  /** Whether the application's data says that this is somebody else's session from now on. */
  #isAnothers(data: Data): boolean {
    if (this.#view === undefined) return false;
    const subject = this.#subjectOf(data);
    if (subject !== null) return subject !== this.#view.subject;
    // By its data it was theirs, and isn't any more: so signs out who keeps the user there.
    return this.#view.subject !== null && this.#subjectOf(this.#baseline) === this.#view.subject;
  }

  #subjectOf(data: Data): string | null {
    const subject = this.shared.subject?.(data) ?? null;
    return subject === null ? null : String(subject);
  }

  async #open(all: Data): Promise<void> {
    if (this.res.headersSent) {
      this.shared.logger.warn(
        'cloakroom: a session was begun after the answer; call `await req.session.save()` before you write',
      );
      return;
    }
    const subject = this.#subjectOf(all);
    const claims = subject === null ? undefined : this.shared.claims?.(all);
    const data = this.#dataFor(subject);
    const age = this.#session.cookie.originalMaxAge;
    const maxAge = age === null ? undefined : Math.max(1, Math.round(age / 1000));
    const grant: Grant = { subject, data };
    if (claims) grant.claims = claims;
    if (maxAge !== undefined) Object.assign(grant, { idle_timeout: maxAge, lifetime: maxAge });
    await this.#openWith(grant, { data, carried: false, maxAge });
    this.#baseline = data;
    if (!isEqual(all, data)) fill(this.#session, data);
  }

  async #openWith(grant: Grant, { data, carried, maxAge, label }: Opening): Promise<Opened> {
    if (this.res.headersSent) throw new TypeError('a cookie can no longer be set: the answer has begun');
    const former = this.#token ?? this.#former?.token;
    const formerSid = this.#token === undefined ? this.#former?.sid : this.sid;
    const body = { ...grant, delivery: 'cookie', client: this.#client(label) };
    let opened: Opened;
    try {
      opened = await this.shared.backend.open(
        former === undefined ? body : { ...body, replaces: former, carry_data: carried },
      );
    } catch (refusal) {
      // The former one was over already, or another request has replaced it: then there is nothing
      // left to end, and its successor is that request's alone. Where the sign-in itself is
      // refused, by an epoch, it is so again.
      if (former === undefined || !isEnd(refusal, true)) throw refusal;
      opened = await this.shared.backend.open({ ...body, data });
    }
    if (formerSid !== undefined) this.shared.backend.noteReplaced(formerSid);
    const [line] = opened.set_cookie ?? [];
    if (line !== undefined) this.shared.jar.set(this.res, line, maxAge);
    this.#former = undefined;
    this.#isOver = false;
    this.#take(opened.session_token ?? '', opened.session);
    if (this.req.session !== this.#session) this.req.session = this.#session;
    return opened;
  }

  #take(token: string, view: SessionView): void {
    this.#token = token;
    this.#view = view;
    this.sid = view.id;
    this.refusal = undefined;
    this.auth = undefined;
    if (view.subject === null) return;
    this.auth = {
      sid: view.id,
      subject: view.subject,
      claims: view.claims,
      authTime: new Date(view.auth_time),
      amr: view.amr,
      acr: view.acr,
      actor: view.actor ?? undefined,
      via: 'cookie',
    };
    const ours: unknown = this.req.user;
    if (ours === undefined || OUR_USERS.has(ours as object)) this.#setUser();
  }

  #setUser(): void {
    if (this.auth === undefined) return;
    const user = { ...this.auth.claims, id: this.auth.subject };
    OUR_USERS.add(user);
    this.req.user = user;
  }

  #leave(): void {
    this.#token = undefined;
    this.#view = undefined;
    this.sid = undefined;
    this.auth = undefined;
    this.#baseline = {};
    if (OUR_USERS.has(this.req.user)) delete this.req.user;
  }

  #signedOut(): void {
    const byCookie = this.#token !== undefined || this.#former !== undefined;
    this.#leave();
    this.#former = undefined;
    this.#isOver = true;
    delete this.req.session;
    delete this.req.user;
    if (byCookie) this.clearCookie();
  }

  #renewCookie(): void {
    const { cookie } = this.#session;
    if (!cookie.isChanged || this.#token === undefined || this.res.headersSent) return;
    const seconds = Math.max(0, Math.round((cookie.maxAge ?? 0) / 1000));
    this.shared.jar.renew(this.res, this.#token, this.req.secure === true, seconds);
  }

  #renew(data: Data): void {
    this.#session = this.#fresh(data);
    this.req.session = this.#session;
  }

  #fresh(data: Data): Session {
    const endsAt = this.#view ? new Date(this.#view.idle_expires_at) : null;
    return new Session(this, data, new SessionCookie(this.req.secure === true, endsAt));
  }

  get session(): Session {
    return this.#session;
  }

  #client(label?: string): Record<string, string> {
    const client: Record<string, string> = label === undefined ? {} : { label };
    if (typeof this.req.ip === 'string') client['ip'] = this.req.ip;
    const agent = this.req.headers['user-agent'];
    if (typeof agent === 'string') client['user_agent'] = agent;
    return client;
  }

  /** One after another: a `save` that nobody awaits must not overtake the end of the request. */
  #queued<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }
}

/** The values of `req.user` that are ours to take away; an application's own are not. */
const OUR_USERS = new WeakSet<object>();

/** Whether a refusal says that the session is over or replaced. */
function isEnd(refusal: unknown, orReplaced = false): boolean {
  if (!(refusal instanceof CloakroomError)) return false;
  if (refusal.status === 401 || refusal.code === 'not_found') return true;
  return orReplaced && refusal.code === 'conflict';
}
