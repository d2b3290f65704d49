import { AsyncLocalStorage } from 'node:async_hooks';
import http from 'node:http';
import https from 'node:https';
import { CloakroomError, refusals } from './errors.js';

/** Where warnings go. */
export interface Logger {
  warn(message: string): void;
  info(message: string): void;
}

/** How the authority is reached. */
export interface TransportOptions {
  url: string;
  apiKey: string;
  /** Milliseconds until an unanswered request is given up. */
  timeout: number;
  logger: Logger;
}

/** One request to the authority. */
export interface Ask {
  method: string;
  path: string;
  body?: unknown;
  form?: Record<string, string>;
  headers?: Record<string, string>;
  /** Statuses that are answers besides 2xx. */
  expect?: number[];
}

/** What came back. */
export interface Reply {
  status: number;
  headers: http.IncomingHttpHeaders;
  text: string;
  json: any;
}

/** Failures in a row after which requests are refused without trying, until a probe succeeds. */
const FAILURES_MAX = 3;
const BACKOFF_MIN = 100;
const BACKOFF_MAX = 5_000;

/** The trace (W3C Trace Context, version 00) of the request that is being served. */
const traces = new AsyncLocalStorage<string>();
const TRACEPARENT = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** Serves a request, whose trace goes on at the authority where it has one. */
export function traced(parent: unknown, serve: () => void): void {
  if (typeof parent === 'string' && TRACEPARENT.test(parent)) traces.run(parent, serve);
  else serve();
}

/** Does what is on behalf of no request, such as a batch of several. */
export function untraced<T>(work: () => T): T {
  return traces.exit(work);
}

/** Requests to the authority: kept connections, a deadline, and back-off while it is down. */
export class Transport {
  readonly #options: TransportOptions;
  readonly #agent: http.Agent;
  readonly #base: URL;
  #failures = 0;
  #tryAgainAt = 0;
  #downSince = 0;

  constructor(options: TransportOptions) {
    this.#options = options;
    this.#base = new URL(options.url);
    const settings = { keepAlive: true, maxSockets: 64, scheduling: 'lifo' as const };
    this.#agent =
      this.#base.protocol === 'https:' ? new https.Agent(settings) : new http.Agent(settings);
  }

  /** Asks; a refusal or a fault is thrown as a {@link CloakroomError}. */
  async ask(ask: Ask): Promise<Reply> {
    if (this.isDown) {
      const now = Date.now();
      if (now < this.#tryAgainAt) {
        throw refusals.unreachable(`the authority at ${this.#options.url} does not answer`);
      }
      // This one is the probe; the others go on being refused until it is answered.
      this.#tryAgainAt = now + this.#options.timeout;
    }
    let reply: Reply;
    try {
      reply = await this.#send(ask);
    } catch (cause) {
      this.#failed(cause);
      throw refusals.unreachable(`the authority at ${this.#options.url}: ${text(cause)}`, cause);
    }
    this.#answered();
    const fine = reply.status >= 200 && reply.status < 300;
    if (fine || ask.expect?.includes(reply.status)) return reply;
    throw problemOf(reply);
  }

  /** An open answer whose body is read as it comes, for the revocation feed. */
  open(path: string, headers: Record<string, string>): http.ClientRequest {
    return this.#request({ method: 'GET', path, headers });
  }

  /** Whether requests are refused without trying. */
  get isDown(): boolean {
    return this.#failures >= FAILURES_MAX;
  }

  /** A connection that somebody else found broken. */
  noteFailure(cause: unknown): void {
    this.#failed(cause);
  }

  close(): void {
    this.#agent.destroy();
  }

  #request(ask: Ask): http.ClientRequest {
    const headers: Record<string, string | number> = {
      authorization: `Bearer ${this.#options.apiKey}`,
      ...ask.headers,
    };
    const parent = traces.getStore();
    if (parent !== undefined) headers['traceparent'] = parent;
    let payload: string | undefined;
    if (ask.form) {
      payload = new URLSearchParams(ask.form).toString();
      headers['content-type'] = 'application/x-www-form-urlencoded';
    } else if (ask.body !== undefined) {
      payload = JSON.stringify(ask.body);
      headers['content-type'] = 'application/json';
    }
    if (payload !== undefined) headers['content-length'] = Buffer.byteLength(payload);
    const send = this.#base.protocol === 'https:' ? https.request : http.request;
    const request = send({
      protocol: this.#base.protocol,
      host: this.#base.hostname.replace(/^\[|\]$/g, ''),
      port: this.#base.port || undefined,
      path: this.#base.pathname.replace(/\/$/, '') + ask.path,
      method: ask.method,
      agent: this.#agent,
      headers,
    });
    if (payload !== undefined) request.write(payload);
    request.end();
    return request;
  }

  async #send(ask: Ask): Promise<Reply> {
    try {
      return await this.#sendOnce(ask);
    } catch (fault) {
      // A kept connection that the other side had closed: nothing was read, so once more.
      if ((fault as { stale?: boolean }).stale) return this.#sendOnce(ask);
      throw fault;
    }
  }

  #sendOnce(ask: Ask): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const request = this.#request(ask);
      const deadline = setTimeout(
        () => request.destroy(new Error(`no answer within ${this.#options.timeout} ms`)),
        this.#options.timeout,
      );
      const fail = (fault: NodeJS.ErrnoException) => {
        clearTimeout(deadline);
        if (request.reusedSocket && fault.code === 'ECONNRESET') Object.assign(fault, { stale: true });
        reject(fault);
      };
      request.on('error', fail);
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', fail);
        response.on('end', () => {
          clearTimeout(deadline);
          const body = Buffer.concat(chunks).toString('utf8');
          const { statusCode: status = 0, headers } = response;
          resolve({ status, headers, text: body, json: parse(body) });
        });
      });
    });
  }

  #failed(cause: unknown): void {
    if (this.#failures === 0) this.#downSince = Date.now();
    this.#failures += 1;
    if (this.#failures === FAILURES_MAX) {
      this.#options.logger.warn(
        `cloakroom: the authority at ${this.#options.url} can't be reached (${text(cause)}); ` +
          'requests that need it are answered 503 until it is back',
      );
    }
    const beyond = Math.max(0, this.#failures - FAILURES_MAX);
    const pause = Math.min(BACKOFF_MAX, BACKOFF_MIN * 2 ** beyond);
    // Many processes that lost the same authority shouldn't come back at the same instant.
    this.#tryAgainAt = Date.now() + pause * (0.5 + Math.random() / 2);
  }

  #answered(): void {
    if (this.#failures >= FAILURES_MAX) {
      const seconds = Math.round((Date.now() - this.#downSince) / 1000);
      this.#options.logger.info(`cloakroom: the authority is back after ${seconds} s`);
    }
    this.#failures = 0;
  }
}

function parse(body: string): any {
  if (body === '') return undefined;
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

/** A refusal in the authority's own words. */
export function problemOf(reply: Reply): CloakroomError {
  const said = reply.json ?? {};
  const retryAfter = Number(reply.headers['retry-after']);
  return new CloakroomError({
    code: typeof said.code === 'string' ? said.code : reply.status >= 500 ? 'internal' : 'unexpected_answer',
    status: reply.status >= 400 ? reply.status : 502,
    detail: said.detail ?? `the authority answered ${reply.status}`,
    requestId: said.request_id ?? header(reply.headers['x-request-id']),
    reason: said.reason,
    member: said.member,
    retryAfter: Number.isFinite(retryAfter) ? retryAfter : undefined,
  });
}

function header(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

function text(cause: unknown): string {
  const fault = cause as NodeJS.ErrnoException;
  return fault?.code ?? fault?.message ?? String(cause);
}
