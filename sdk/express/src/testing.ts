import { randomBytes } from 'node:crypto';
import type { Known, Opened, SessionView, Stored } from './authority.js';
import type { Backend } from './carrier.js';
import { refusals } from './errors.js';
import { middlewareOver, type CloakroomOptions, type Handler } from './middleware.js';
import { merge, type Change, type Data } from './patch.js';

/** Settings of {@link fake}. */
export interface Fake {
  /** Who every request is by. Without it nobody is signed in, until `login`. */
  subject?: string;
  claims?: Record<string, unknown>;
  /** What the session remembers. */
  data?: Data;
  /** When the user signed in. Default: now. */
  authTime?: Date;
}

/** Where the fake's own session is kept: a cookie that no request has to send. */
const FIXED = 'cks_fake';
const DAY = 86_400_000;

/**
 * The middleware for tests of an application: the same `req.session`, guards, `login` and
 * `logout`, without an authority. Everything is kept in memory.
 */
export function fake(who: Fake = {}, options: CloakroomOptions = {}): Handler {
  const backend = new Memory();
  const { subject, claims = {}, data = {}, authTime = new Date() } = who;
  if (subject !== undefined) backend.put(FIXED, { subject, claims, auth_time: authTime.toISOString() }, data);
  const [middleware] = middlewareOver(backend, { originCheck: false, ...options });
  return (req, res, next) => {
    const own = req.headers.cookie as string | undefined;
    const isBearer = req.headers.authorization !== undefined;
    // The fake's session is the request's unless it brings another or was signed out.
    if (!isBearer && !own?.includes('session=') && backend.isLive(FIXED)) {
      req.headers.cookie = own === undefined ? `session=${FIXED}` : `${own}; session=${FIXED}`;
    }
    middleware(req, res, next);
  };
}

class Memory implements Backend {
  readonly #sessions = new Map<string, { view: SessionView; data: Data }>();

  put(token: string, about: Partial<SessionView>, data: Data): SessionView {
    const now = new Date();
    const view: SessionView = {
      id: randomBytes(13).toString('hex').toUpperCase(),
      subject: null,
      created_at: now.toISOString(),
      last_seen_at: now.toISOString(),
      auth_time: now.toISOString(),
      idle_expires_at: new Date(now.getTime() + DAY).toISOString(),
      expires_at: new Date(now.getTime() + 7 * DAY).toISOString(),
      amr: [],
      acr: 'aal1',
      delivery: 'cookie',
      claims: {},
      client: {},
      csrf_key: randomBytes(32).toString('base64url'),
      ended: null,
      ...about,
    };
    this.#sessions.set(token, { view, data });
    return view;
  }

  isLive(token: string): boolean {
    return this.#sessions.has(token);
  }

  async lookup(token: string): Promise<Known> {
    const found = this.#sessions.get(token);
    if (!found) throw refusals.sessionEnded('signed_out');
    return { view: found.view, data: JSON.stringify(found.data) };
  }

  async access(token: string) {
    const found = this.#sessions.get(token);
    if (!found || found.view.subject === null) throw refusals.tokenInvalid();
    const { id: sid, subject, claims, auth_time, amr, acr } = found.view;
    const actor = found.view.actor ?? undefined;
    return { sid, subject, claims, authTime: new Date(auth_time), amr, acr, actor };
  }

  async data(sid: string): Promise<Stored> {
    return { data: JSON.stringify(this.#bySid(sid).data) };
  }

  async open(body: Record<string, unknown>): Promise<Opened> {
    const { subject, claims = {}, data = {}, delivery = 'cookie', replaces, carry_data, actor = null } = body as any;
    const former = this.#sessions.get(replaces);
    if (replaces !== undefined && !former) throw refusals.sessionEnded('replaced');
    this.#sessions.delete(replaces);
    const random = randomBytes(16).toString('base64url');
    const about = { subject, claims, delivery, actor };
    const carry = carry_data && [null, subject].includes(former?.view.subject);
    if (delivery !== 'cookie') {
      const token = `e30.${random}.fake`;
      const view = this.put(token, about, data);
      return { session: view, token_type: 'Bearer', access_token: token, expires_in: 900, refresh_token: `ckr_${random}` };
    }
    const token = `cks_${random}`;
    const view = this.put(token, about, carry ? { ...former?.data, ...data } : data);
    const line = `session=${token}; Path=/; HttpOnly; SameSite=Lax`;
    return { session: view, session_token: token, set_cookie: [line] };
  }

  async end(sid: string): Promise<void> {
    for (const [token, { view }] of this.#sessions) {
      if (view.id === sid) this.#sessions.delete(token);
    }
  }

  async endAll(subject: string): Promise<number> {
    const theirs = [...this.#sessions].filter(([, { view }]) => view.subject === subject);
    for (const [token] of theirs) this.#sessions.delete(token);
    return theirs.length;
  }

  async change(sid: string, change: Change): Promise<undefined> {
    const found = this.#bySid(sid);
    found.data = 'patch' in change ? merge(found.data, change.patch) : change.apply(found.data);
  }

  noteUse(): void {}

  noteReplaced(): void {}

  #bySid(sid: string) {
    const found = [...this.#sessions.values()].find(({ view }) => view.id === sid);
    if (!found) throw refusals.sessionEnded('signed_out');
    return found;
  }
}
