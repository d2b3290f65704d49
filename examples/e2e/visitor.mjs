// A client without a browser: keeps cookies, sends JSON or forms, follows nothing.
export const baseUrl = process.env.BASE_URL ?? 'http://127.0.0.1:3000';

export function visitor() {
  const jar = new Map();
  let bearer;

  async function send(method, path, { json, form, headers = {}, csrf } = {}) {
    const sent = { accept: 'application/json', ...headers };
    let body;
    if (json !== undefined) {
      sent['content-type'] = 'application/json';
      body = JSON.stringify(json);
    }
    if (form) {
      sent['content-type'] = 'application/x-www-form-urlencoded';
      body = new URLSearchParams(form).toString();
    }
    if (csrf) sent['x-csrf-token'] = csrf;
    if (bearer) sent.authorization = `Bearer ${bearer}`;
    if (jar.size > 0) sent.cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(baseUrl + path, { method, headers: sent, body, redirect: 'manual' });
    const cookies = response.headers.getSetCookie();
    for (const line of cookies) keep(line);
    const text = await response.text();
    return { status: response.status, headers: response.headers, cookies, text, body: parse(text) };
  }

  function keep(line) {
    const [pair, ...attributes] = line.split(';');
    const [name, value] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)];
    const past = attributes.some((one) => {
      const [key, at = ''] = one.trim().split('=');
      if (/^max-age$/i.test(key)) return Number(at) <= 0;
      return /^expires$/i.test(key) && Date.parse(at) <= Date.now();
    });
    if (past || value === '') jar.delete(name);
    else jar.set(name, value);
  }

  return {
    jar,
    withBearer(token) {
      bearer = token;
      return this;
    },
    get: (path, options) => send('GET', path, options),
    post: (path, options) => send('POST', path, options),
    async csrf() {
      return (await send('GET', '/csrf-token')).body.csrf_token;
    },
    /** The one cookie of ours. */
    session: () => jar.get('session') ?? jar.get('__Host-session'),
  };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
