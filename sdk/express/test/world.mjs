// An Express application over a real authority, and a browser's memory for cookies.
import request from 'supertest';
import { startAuthority } from './authority.mjs';

export const version = process.env.EXPRESS === '4' ? 4 : 5;
export const { default: express } = await import(version === 4 ? 'express4' : 'express');

/** A logger that remembers. */
export function listener() {
  const lines = [];
  return { lines, warn: (line) => lines.push(line), info: (line) => lines.push(line) };
}

/** Express 4 doesn't catch what async handlers throw. */
export function caught(handler) {
  return (req, res, next) => Promise.resolve(handler(req, res, next)).catch(next);
}

/** Keeps cookies from one request to the next, and nothing else. */
export function browser(app) {
  const jar = new Map();
  const send = (method, path, { headers = {}, body, form } = {}) => {
    let sent = request(app)[method](path).redirects(0);
    if (jar.size > 0) sent = sent.set('cookie', [...jar].map(([name, value]) => `${name}=${value}`).join('; '));
    for (const [name, value] of Object.entries(headers)) sent = sent.set(name, value);
    if (form) sent = sent.type('form').send(form);
    else if (body !== undefined) sent = sent.send(body);
    return sent.then((response) => {
      for (const line of response.headers['set-cookie'] ?? []) keep(jar, line);
      return response;
    });
  };
  return {
    jar,
    get: (path, options) => send('get', path, options),
    post: (path, options) => send('post', path, options),
    delete: (path, options) => send('delete', path, options),
  };
}

function keep(jar, line) {
  const [pair, ...attributes] = line.split(';');
  const [name, value] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)];
  const over = attributes.some((one) => /max-age=0$/i.test(one.trim())) || value === '';
  if (over) jar.delete(name);
  else jar.set(name, value);
}

export { startAuthority };
