/** Why a session is over, in the authority's words. */
export interface SignedOut {
  code?: string;
  reason?: string;
  detail?: string;
}

/** Settings of {@link createSession}. */
export interface SessionOptions {
  /** Where the authority's endpoints are, on the page's own origin. Default `/auth`. */
  base?: string;
  /** Origins besides the page's own that may see the token. */
  origins?: string[];
  /** Tells apart the sessions of one origin. Default `cloakroom`. */
  name?: string;
  /** Called once in every tab when the session is over. */
  onSignedOut?: (why: SignedOut) => void;
}

/** The session of a page. */
export interface BrowserSession {
  /** Takes the answer of `POST /auth/login` with `delivery: "split"`. Returns the access token. */
  adopt(answer: { access_token: string; expires_in: number; csrf_token?: string }): string;
  /** A fresh access token; rejects with `status` 401 when the session is over. */
  refresh(): Promise<string>;
  /** The access token, asked for if there is none. */
  token(): Promise<string>;
  /** `fetch` with the token, and once more with a fresh one after a 401. */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  /** Ends the session, in all tabs. */
  signOut(): Promise<void>;
  /** Stops the timer and the talk with other tabs. */
  close(): void;
}

/** The access token of a `split` session: one refresh in flight, whatever asks for it. */
export function createSession(options?: SessionOptions): BrowserSession;
