/** What the authority, or this package on its behalf, says is wrong. */
export interface Problem {
  /** Stable and machine-readable, as in Cloakroom's HTTP API. */
  code: string;
  /** The HTTP status that fits. */
  status: number;
  /** For people. */
  detail: string;
  /** The request's id in the authority's log. */
  requestId?: string | undefined;
  /** Why the session is over, with `session_ended`. */
  reason?: string | undefined;
  /** The member of the request that can't be taken. */
  member?: string | undefined;
  /** Seconds to wait before trying again. */
  retryAfter?: number | undefined;
}

const TITLES: Record<string, string> = {
  authority_unreachable: 'Session authority unreachable',
  credentials_required: 'Sign-in required',
  credentials_invalid: 'Credentials invalid',
  csrf_failed: 'Cross-site request refused',
  insufficient_claims: 'Not allowed',
  rate_limited: 'Too many requests',
  reauthentication_required: 'Recent sign-in required',
  session_ended: 'Session ended',
  token_expired: 'Token expired',
  token_invalid: 'Token invalid',
  token_wrong_type: 'Token of another type',
};

/** An error with the authority's own `code`, fit for `next(err)`: Express answers its `status`. */
export class CloakroomError extends Error implements Problem {
  readonly code: string;
  readonly status: number;
  readonly detail: string;
  readonly requestId: string | undefined;
  readonly reason: string | undefined;
  readonly member: string | undefined;
  readonly retryAfter: number | undefined;
  /** Headers that Express's own error handler sends along. */
  readonly headers: Record<string, string>;

  constructor(problem: Problem, options?: { cause?: unknown }) {
    const member = problem.member === undefined ? '' : ` (member: ${problem.member})`;
    super(`${problem.code}: ${problem.detail}${member}`, options);
    this.name = 'CloakroomError';
    this.code = problem.code;
    this.status = problem.status;
    this.detail = problem.detail;
    this.requestId = problem.requestId;
    this.reason = problem.reason;
    this.member = problem.member;
    this.retryAfter = problem.retryAfter;
    this.headers = {};
    if (problem.retryAfter !== undefined) this.headers['Retry-After'] = String(problem.retryAfter);
    if (problem.status === 401) this.headers['WWW-Authenticate'] = challenge(problem.code);
  }

  /** The body of an answer: `application/problem+json` (RFC 9457). */
  toJSON(): Record<string, unknown> {
    return {
      type: `urn:cloakroom:problem:${this.code}`,
      title: TITLES[this.code] ?? this.code,
      status: this.status,
      detail: this.detail,
      code: this.code,
      request_id: this.requestId,
      reason: this.reason,
      member: this.member,
    };
  }
}

/** RFC 6750 section 3: `error` only where a token was presented. */
function challenge(code: string): string {
  return code === 'credentials_required' ? 'Bearer' : 'Bearer error="invalid_token"';
}

/** Whether the error says that nobody knows: neither yes nor no. */
export function isUnknown(error: unknown): boolean {
  return !(error instanceof CloakroomError) || error.status >= 500 || error.status === 429;
}

/** The refusals that are made here, in the words of the authority. */
export const refusals = {
  credentialsRequired: () =>
    new CloakroomError({ code: 'credentials_required', status: 401, detail: 'sign-in is required' }),
  tokenInvalid: (cause?: unknown) =>
    new CloakroomError({ code: 'token_invalid', status: 401, detail: 'the token is invalid' }, { cause }),
  tokenExpired: () =>
    new CloakroomError({ code: 'token_expired', status: 401, detail: 'the token has expired' }),
  tokenWrongType: () =>
    new CloakroomError({
      code: 'token_wrong_type',
      status: 401,
      detail: 'a credential of another type belongs here',
    }),
  sessionEnded: (reason?: string) =>
    new CloakroomError({ code: 'session_ended', status: 401, detail: 'the session has ended', reason }),
  reauthenticationRequired: () =>
    new CloakroomError({
      code: 'reauthentication_required',
      status: 401,
      detail: 'a more recent or stronger sign-in is required',
    }),
  insufficientClaims: () =>
    new CloakroomError({
      code: 'insufficient_claims',
      status: 403,
      detail: 'the session lacks a required claim',
    }),
  onBehalf: () =>
    new CloakroomError({
      code: 'forbidden',
      status: 403,
      detail: "a session opened on behalf of a user can't do this",
    }),
  csrfFailed: (detail: string) => new CloakroomError({ code: 'csrf_failed', status: 403, detail }),
  rateLimited: (retryAfter: number) =>
    new CloakroomError({
      code: 'rate_limited',
      status: 429,
      detail: 'too many requests; try again later',
      retryAfter,
    }),
  unreachable: (detail: string, cause?: unknown) =>
    new CloakroomError(
      { code: 'authority_unreachable', status: 503, detail, retryAfter: 1 },
      { cause },
    ),
};
