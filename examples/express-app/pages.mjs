// The three pages, as plain HTML.
const escape = (text) => String(text).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

const page = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8">
<title>${title}</title><h1>${title}</h1>${body}`;

const hidden = (name, value) => `<input type="hidden" name="${name}" value="${escape(value)}">`;

export const home = () => page('Shop', '<p><a href="/login">Sign in</a> · <a href="/account">Your account</a>');

export const login = ({ csrfToken, returnTo, error }) => page('Sign in', `
${error ? `<p role="alert">${escape(error)}</p>` : ''}
<form method="post" action="/login">
  ${hidden('csrf_token', csrfToken)} ${returnTo ? hidden('return_to', returnTo) : ''}
  <label>E-mail <input name="email" type="email" autocomplete="username" required></label>
  <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
  <button>Sign in</button>
</form>`);

export const account = ({ csrfToken, email }) => page('Your account', `
<p>Signed in as ${escape(email)}</p>
<form method="post" action="/logout">${hidden('csrf_token', csrfToken)}<button>Sign out</button></form>
<form method="post" action="/api/auth/logout-everywhere">
  ${hidden('csrf_token', csrfToken)}<button>Sign out everywhere</button>
</form>`);
