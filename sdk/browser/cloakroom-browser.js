// The access token of a `split` session: in memory, renewed before it runs out. The refresh token
// is in a cookie that no script sees. However many timers, retries and tabs want a new token at
// once, one asks for it and all get it.

/** Renewed this long before the end, so that no request carries a token about to run out. */
const LEEWAY = 30_000;
const RETRY_MAX = 60_000;
/** Other tabs are asked for a token first, and have this long; longer, if one of them is at it. */
const ANSWER = 50;
const ANSWER_BUSY = 1_000;
const BUSY = Symbol('busy');

export function createSession({ base = '/auth', origins = [], name = 'cloakroom', onSignedOut } = {}) {
  const channel = new BroadcastChannel(name);
  const trusted = [location.origin, ...origins];
  let current; // { token, csrf, from, until }
  let flight, timer, heard;
  let pause = 1_000;

  channel.onmessage = ({ data }) => {
    if (data.over) leave(data.over);
    else if (!data.ask) keep(data);
    else if (current && current.token !== data.ask.not && Date.now() < current.until) channel.postMessage(current);
  };

  function keep(fresh) {
    if (current && fresh.from < current.from) return;
    current = fresh;
    heard?.();
    pause = 1_000;
    const life = fresh.until - fresh.from;
    wake(fresh.until - Date.now() - Math.min(LEEWAY, life / 4));
  }

  function wake(ms) {
    clearTimeout(timer);
    timer = setTimeout(() => refresh(current?.token).catch(() => undefined), Math.max(0, ms));
  }

  function leave(why) {
    clearTimeout(timer);
    if (!current && !why) return;
    current = undefined;
    onSignedOut?.(why);
  }

  /** Takes the answer of a sign-in or a refresh, and tells the other tabs. */
  function adopt(answer) {
    const from = Date.now();
    const fresh = { token: answer.access_token, csrf: answer.csrf_token, from, until: from + answer.expires_in * 1000 };
    keep(fresh);
    channel.postMessage(fresh);
    return fresh.token;
  }

  /** A token other than `stale`: another tab's, or a new one. */
  function refresh(stale) {
    flight ??= locked(stale).finally(() => (flight = undefined));
    return flight;
  }

  async function locked(stale) {
    const { locks } = navigator;
    if (!locks) return exchange(stale);
    const attempt = (lock) => (lock ? exchange(stale, ANSWER) : BUSY);
    const result = await locks.request(name, { ifAvailable: true }, attempt);
    return result === BUSY ? locks.request(name, () => exchange(stale, ANSWER_BUSY)) : result;
  }

  async function exchange(stale, patience) {
    const isFresh = () => current && current.token !== stale;
    if (!isFresh() && patience) {
      channel.postMessage({ ask: { not: stale } });
      await new Promise((resolve) => setTimeout((heard = resolve), patience));
    }
    // Another tab has done it meanwhile.
    if (isFresh()) return current.token;
    try {
      let response = await send('/refresh', current?.csrf ?? (await csrfToken()));
      if (response.status === 403) response = await send('/refresh', await csrfToken());
      if (response.ok) return adopt(await response.json());
      const problem = await response.json().catch(() => ({}));
      // Without a refresh cookie there was no session to begin with.
      if (response.status === 401 || problem.code === 'refresh_token_required') {
        channel.postMessage({ over: problem });
        leave(problem);
      }
      throw Object.assign(new Error(problem.detail ?? `refresh: ${response.status}`), problem, { status: response.status });
    } catch (fault) {
      // Not "no" but "don't know": the session may be well. Asked again, ever more seldom.
      if (current) wake((pause = Math.min(RETRY_MAX, pause * 2)));
      throw fault;
    }
  }

  const send = (path, csrf) =>
    fetch(base + path, { method: 'POST', headers: { 'X-CSRF-Token': csrf ?? '' }, credentials: 'same-origin' });

  async function csrfToken() {
    const response = await fetch(`${base}/csrf-token`, { credentials: 'same-origin' });
    return response.ok ? (await response.json()).csrf_token : undefined;
  }

  return {
    adopt,
    refresh: () => refresh(current?.token),
    /** The token to send now; asks for one if there is none. */
    token: async () => (current && Date.now() < current.until ? current.token : refresh(current?.token)),

    /** `fetch` with the token, for our own origins; after a 401 once more with a fresh one. */
    async fetch(input, init) {
      const request = new Request(input, init);
      if (!trusted.includes(new URL(request.url).origin)) return fetch(request);
      const again = request.clone();
      const first = await this.token();
      const response = await fetch(bearing(request, first));
      if (response.status !== 401) return response;
      return fetch(bearing(again, await refresh(first)));
    },

    /** Ends the session, in all tabs. */
    async signOut() {
      const csrf = current?.csrf ?? (await csrfToken());
      const response = await send('/logout', csrf);
      if (!response.ok) throw Object.assign(new Error(`logout: ${response.status}`), { status: response.status });
      channel.postMessage({ over: { code: 'session_ended', reason: 'signed_out' } });
      leave({ code: 'session_ended', reason: 'signed_out' });
    },

    close() {
      clearTimeout(timer);
      channel.close();
    },
  };
}

function bearing(request, token) {
  request.headers.set('Authorization', `Bearer ${token}`);
  return request;
}
