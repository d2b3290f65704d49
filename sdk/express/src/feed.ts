import type { ClientRequest, IncomingMessage } from 'node:http';
import { CloakroomError, isUnknown } from './errors.js';
import { problemOf, type Logger, type Transport } from './transport.js';

/** A subject whose sessions of a lower epoch are over, but for one that was taken along. */
interface Raised {
  epoch: number;
  except: string | undefined;
  heardAt: number;
}

/** A connection without a word for this long is dead: the authority speaks every 500 ms. */
const SILENCE_MAX = 5_000;
const RETRY_MIN = 250;
const RETRY_MAX = 5_000;
/** Attempts in a row that fail before it is told. */
const MISSES_TOLD = 3;
/** Clocks further apart than this are told once. */
const CLOCK_WARNING = 2_000;
/** No access token lives longer than this, so nothing older says anything of one. */
const KEPT_MAX = 24 * 3600 * 1000;
/** Tokens issued up to this long after an `all` are over too, in milliseconds. */
const ALL_MARGIN = 5_000;

/** What a listener of the feed hears besides what it can look up. */
export interface FeedListener {
  /** Drop what is known of this session. */
  session(sid: string): void;
  /** Drop what is known of all sessions of this subject. */
  subject(subject: string): void;
  /** A signing key came, went, or was revoked. */
  key(kid: string, state: string): void;
  /** Keys may have come and gone that nobody told of. */
  keysUnknown(): void;
  /** Drop everything. */
  all(): void;
}

/**
 * The revocation feed (section 7 of the HTTP contract): which sessions, tokens and keys are over,
 * and how long ago that was known to be complete.
 */
export class Feed {
  readonly #transport: Transport;
  readonly #logger: Logger;
  readonly #listener: FeedListener;
  readonly #ended = new Map<string, { reason: string; until: number }>();
  readonly #steppedUp = new Map<string, { authTime: number; heardAt: number }>();
  readonly #subjects = new Map<string, Raised>();
  readonly #tokens = new Map<string, number>();
  readonly #keys = new Map<string, string>();
  #all = 0;
  #cursor: string | undefined;
  #provenAt = 0;
  #heardAt = Number.NEGATIVE_INFINITY;
  #request: ClientRequest | undefined;
  #watchdog: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #pause = RETRY_MIN;
  #waiting: (() => void) | undefined;
  #closed = false;
  #misses = 0;
  #lost = false;
  #clockTold = false;
  /** Counts everything that was told; for who must know whether something came in meanwhile. */
  told = 0;
  /** Why the authority refuses to talk to us, if it does. */
  refused: CloakroomError | undefined;

  constructor(transport: Transport, logger: Logger, listener: FeedListener) {
    this.#transport = transport;
    this.#logger = logger;
    this.#listener = listener;
  }

  /** Takes the snapshot, then listens on; resolves when the first attempt is settled. */
  async start(): Promise<void> {
    await this.#connect();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    clearTimeout(this.#watchdog);
    this.#request?.destroy();
  }

  /** Resolves with the first heartbeat, or when it has had `within` milliseconds to come. */
  async heard(within: number): Promise<void> {
    if (this.#heardAt !== Number.NEGATIVE_INFINITY) return;
    await new Promise<void>((resolve) => {
      // Not unref'd: who waits for this at the top of a program has nothing else to keep it up.
      const timer = setTimeout(resolve, within);
      this.#waiting = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Milliseconds since the feed is known to have been complete. */
  staleness(): number {
    return Math.max(Date.now() - this.#provenAt, performance.now() - this.#heardAt);
  }

  /** Whether endings are known here as soon as they must be, and the clocks agree. */
  isFresh(stalenessMax: number): boolean {
    // By a clock that is behind, what has run out long ago would still be good.
    const behind = this.#provenAt - Date.now();
    return this.staleness() < stalenessMax && behind <= CLOCK_WARNING;
  }

  /** The authority's time, as far as it is known here: milliseconds since 1970. */
  now(): number {
    return Math.max(Date.now(), this.#provenAt);
  }

  /** Why the session is over, if it is. */
  endOf(sid: string): string | undefined {
    return this.#ended.get(sid)?.reason;
  }

  /** Notes an ending that this process has made itself, before the feed tells it. */
  noteEnd(sid: string, reason: string): void {
    if (!this.#ended.has(sid)) {
      // The feed tells how long it has to be remembered, in a moment.
      this.#ended.set(sid, { reason, until: Date.now() + 3600 * 1000 });
    }
    this.told += 1;
    this.#listener.session(sid);
  }

  /** Notes a "sign out everywhere" of our own. */
  noteRaised(subject: string): void {
    this.told += 1;
    this.#listener.subject(subject);
  }

  keyState(kid: string): string | undefined {
    return this.#keys.get(kid);
  }

  /** What the feed has against an access token: nothing, that it is over, or why its session is. */
  against(claims: Record<string, unknown>): 'token_invalid' | 'token_expired' | { ended: string } | undefined {
    const { sid, jti, sub, epoch, auth_time, iat } = claims as Record<string, any>;
    const ended = this.#ended.get(sid);
    if (ended) return { ended: ended.reason };
    if (this.#tokens.has(jti)) return 'token_invalid';
    const raised = this.#subjects.get(sub);
    if (raised && epoch < raised.epoch) {
      return raised.except === sid ? 'token_expired' : { ended: 'signed_out_everywhere' };
    }
    if (this.#all > 0 && iat * 1000 <= this.#all + ALL_MARGIN) return { ended: 'ended_by_operator' };
    const steppedUp = this.#steppedUp.get(sid);
    if (steppedUp && auth_time < Math.floor(steppedUp.authTime / 1000)) return 'token_invalid';
    return undefined;
  }

  async #connect(): Promise<void> {
    if (this.#closed) return;
    try {
      if (this.#cursor === undefined) await this.#snapshot();
      await this.#listen();
      this.refused = undefined;
      this.#pause = RETRY_MIN;
    } catch (fault) {
      this.#failed(fault);
    }
  }

  #failed(fault: unknown): void {
    if (this.#closed) return;
    if (!isUnknown(fault)) {
      const refusal = fault as CloakroomError;
      if (this.refused?.code !== refusal.code) {
        this.#logger.warn(`cloakroom: the authority refuses this API key: ${refusal.detail} (${refusal.code})`);
      }
      this.refused = refusal;
    }
    this.#misses += 1;
    if (!(fault instanceof CloakroomError)) this.#transport.noteFailure(fault);
    // An authority that can't be reached is told by the transport: one line for one outage.
    if (this.#misses === MISSES_TOLD && !this.refused && !this.#transport.isDown) {
      this.#lost = true;
      this.#logger.warn(
        'cloakroom: the revocation feed is lost; every request asks the authority until it is back',
      );
    }
    const pause = this.#pause * (0.5 + Math.random() / 2);
    this.#pause = Math.min(RETRY_MAX, this.#pause * 2);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#connect(), pause);
    this.#retry.unref();
  }

  async #snapshot(): Promise<void> {
    const { json } = await this.#transport.ask({ method: 'GET', path: '/admin/v1/revocations' });
    // What was cached before may have ended in a while that no log tells of any more, and keys
    // may have been revoked and removed in it.
    this.#listener.all();
    this.#forgetKeys();
    this.told += 1;
    for (const entry of json.sessions) this.#session(entry);
    for (const entry of json.subjects) this.#subject(entry);
    for (const entry of json.tokens) this.#tokens.set(entry.jti, Date.parse(entry.until));
    for (const entry of json.keys) this.#key(entry);
    if (json.all) this.#all = Math.max(this.#all, Date.parse(json.all.at));
    this.#cursor = json.cursor;
  }

  #listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      const headers: Record<string, string> = { accept: 'text/event-stream' };
      if (this.#cursor !== undefined) headers['last-event-id'] = this.#cursor;
      const request = this.#transport.open('/admin/v1/revocations/stream', headers);
      this.#request = request;
      let open = false;
      const over = (fault: unknown) => {
        clearTimeout(this.#watchdog);
        request.destroy();
        if (open) {
          open = false;
          this.#failed(fault);
        } else {
          reject(fault);
        }
      };
      const alive = () => {
        clearTimeout(this.#watchdog);
        this.#watchdog = setTimeout(() => over(new Error('the feed has gone silent')), SILENCE_MAX);
        this.#watchdog.unref();
      };
      alive();
      request.on('error', over);
      request.on('response', (response) => {
        if (response.statusCode !== 200) {
          collect(response, (reply) => over(problemOf(reply)));
          return;
        }
        open = true;
        // From here on it keeps no program up by itself.
        response.socket.unref();
        resolve();
        const parser = new EventParser((event, data, id) => this.#event(event, data, id));
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          alive();
          parser.push(chunk);
        });
        response.on('error', over);
        response.on('close', () => over(new Error('the feed was closed')));
      });
    });
  }

  #event(event: string, data: string, id: string | undefined): void {
    const entry = JSON.parse(data);
    if (event === 'heartbeat') {
      this.#heartbeat(entry);
    } else {
      this.told += 1;
      if (event === 'session') this.#session(entry);
      else if (event === 'subject') this.#subject(entry);
      else if (event === 'token') this.#tokens.set(entry.jti, Date.parse(entry.until));
      else if (event === 'key') this.#key(entry);
      else if (event === 'all') this.#allEnded(entry);
      else if (event === 'changed') this.#changed(entry);
      else if (event === 'reset') this.#reset();
    }
    if (id !== undefined && event !== 'reset') this.#cursor = id;
  }

  #heartbeat({ at }: { at: string }): void {
    this.#provenAt = Date.parse(at);
    this.#heardAt = performance.now();
    this.#waiting?.();
    this.#misses = 0;
    if (this.#lost) {
      this.#lost = false;
      this.#logger.info('cloakroom: the revocation feed is back');
    }
    const apart = Math.abs(Date.now() - this.#provenAt);
    if (apart > CLOCK_WARNING && !this.#clockTold) {
      this.#clockTold = true;
      this.#logger.warn(
        `cloakroom: this clock and the authority's are ${Math.round(apart / 1000)} s apart; ` +
          'until they agree every request asks the authority',
      );
    }
    this.#forget();
  }

  #session(entry: { sid: string; reason?: string; until?: string; auth_time?: string }): void {
    if (entry.until !== undefined) {
      // Deleted first, so that the map stays in the order of arrival.
      this.#ended.delete(entry.sid);
      this.#ended.set(entry.sid, { reason: entry.reason ?? '', until: Date.parse(entry.until) });
      this.#steppedUp.delete(entry.sid);
    } else if (entry.auth_time !== undefined) {
      // A stream that is resumed may repeat an earlier one.
      const before = this.#steppedUp.get(entry.sid)?.authTime ?? 0;
      const authTime = Math.max(before, Date.parse(entry.auth_time));
      this.#steppedUp.delete(entry.sid);
      this.#steppedUp.set(entry.sid, { authTime, heardAt: Date.now() });
    }
    this.#listener.session(entry.sid);
  }

  #subject(entry: { subject: string; epoch: number; except?: string }): void {
    const known = this.#subjects.get(entry.subject);
    if (!known || known.epoch < entry.epoch) {
      const { subject, epoch, except } = entry;
      this.#subjects.delete(subject);
      this.#subjects.set(subject, { epoch, except, heardAt: Date.now() });
    }
    this.#listener.subject(entry.subject);
  }

  #key(entry: { kid: string; state: string }): void {
    // Later it is removed as well, like one that was merely retired: a revoked key stays revoked.
    if (this.#keys.get(entry.kid) !== 'revoked') this.#keys.set(entry.kid, entry.state);
    this.#listener.key(entry.kid, entry.state);
  }

  /** What was told of keys, but for the revoked ones, is what the key set says better. */
  #forgetKeys(): void {
    for (const [kid, state] of this.#keys) {
      if (state !== 'revoked') this.#keys.delete(kid);
    }
    this.#listener.keysUnknown();
  }

  #allEnded(entry: { at: string }): void {
    this.#all = Math.max(this.#all, Date.parse(entry.at));
    this.#listener.all();
  }

  #changed(entry: { sid?: string; subject?: string }): void {
    if (entry.sid !== undefined) this.#listener.session(entry.sid);
    if (entry.subject !== undefined) this.#listener.subject(entry.subject);
  }

  /** What was heard so far doesn't lead to what comes: start from a snapshot. */
  #reset(): void {
    this.#cursor = undefined;
    this.#heardAt = Number.NEGATIVE_INFINITY;
    this.#listener.all();
    this.#request?.destroy();
  }

  #forget(): void {
    const now = Date.now();
    // In order of arrival, which is nearly that of `until`: the front tells enough.
    drop(this.#ended, ({ until }) => until <= now);
    drop(this.#tokens, (until) => until <= now);
    drop(this.#steppedUp, ({ heardAt }) => heardAt + KEPT_MAX <= now);
    drop(this.#subjects, ({ heardAt }) => heardAt + KEPT_MAX <= now);
  }
}

/** Removes from the front, where the oldest are. */
function drop<V>(map: Map<string, V>, isOver: (value: V) => boolean): void {
  for (const [key, value] of map) {
    if (!isOver(value)) return;
    map.delete(key);
  }
}

function collect(
  response: IncomingMessage,
  then: (reply: { status: number; headers: IncomingMessage['headers']; text: string; json: any }) => void,
): void {
  let text = '';
  response.setEncoding('utf8');
  response.on('data', (chunk: string) => (text += chunk));
  response.on('end', () => {
    let json: any;
    try {
      json = JSON.parse(text);
    } catch {
      json = undefined;
    }
    then({ status: response.statusCode ?? 0, headers: response.headers, text, json });
  });
}

/** Server-sent events (WHATWG HTML section 9.2), as far as the authority uses them. */
class EventParser {
  readonly #tell: (event: string, data: string, id: string | undefined) => void;
  #rest = '';
  #event = '';
  #data = '';
  #id: string | undefined;

  constructor(tell: (event: string, data: string, id: string | undefined) => void) {
    this.#tell = tell;
  }

  push(chunk: string): void {
    const lines = (this.#rest + chunk).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#line(line.endsWith('\r') ? line.slice(0, -1) : line);
  }

  #line(line: string): void {
    if (line === '') {
      if (this.#event !== '' && this.#data !== '') this.#tell(this.#event, this.#data, this.#id);
      this.#event = '';
      this.#data = '';
      this.#id = undefined;
      return;
    }
    const colon = line.indexOf(':');
    if (colon <= 0) return;
    const value = line.slice(colon + 1).replace(/^ /, '');
    const field = line.slice(0, colon);
    if (field === 'event') this.#event = value;
    else if (field === 'data') this.#data += value;
    else if (field === 'id') this.#id = value;
  }
}
