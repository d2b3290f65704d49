// Starts an authority and an application, then the script: node run.mjs -- COMMAND...
import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

const START_TIMEOUT = 30_000;
const dash = process.argv.indexOf('--');
const command = dash < 0 ? [] : process.argv.slice(dash + 1);
if (command.length === 0) {
  console.error('usage: node run.mjs -- COMMAND... (the application)');
  process.exit(2);
}

const folder = mkdtempSync(path.join(tmpdir(), 'cloakroom-e2e-'));
const children = [];
let status = 1;
try {
  const [publicPort, adminPort, port] = [await freePort(), await freePort(), await freePort()];
  const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('CLOAKROOM_')));
  const adminUrl = `http://127.0.0.1:${adminPort}`;
  start(program(), ['serve', '--data', path.join(folder, 'authority')], {
    ...own,
    CLOAKROOM_SERVER__PUBLIC: `127.0.0.1:${publicPort}`,
    CLOAKROOM_SERVER__ADMIN: `127.0.0.1:${adminPort}`,
    CLOAKROOM_SERVER__ORIGIN: `http://127.0.0.1:${publicPort}`,
    CLOAKROOM_TOKEN__ACCESS_TTL: '10s',
    CLOAKROOM_LOG__LEVEL: 'warn',
  });
  await answers(`${adminUrl}/readyz`);
  const rootKey = readFileSync(path.join(folder, 'authority/root-api.key'), 'utf8').trim();
  const created = await fetch(`${adminUrl}/admin/v1/api-keys`, {
    method: 'POST',
    headers: { authorization: `Bearer ${rootKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'application', scopes: ['sessions:read', 'sessions:write', 'users:read'] }),
  });
  const { secret } = await created.json();
  const admin = { ADMIN_EMAIL: `admin@${randomUUID()}.example`, ADMIN_PASSWORD: randomUUID() };
  const env = {
    ...own,
    PORT: String(port),
    CLOAKROOM_URL: adminUrl,
    CLOAKROOM_API_KEY: secret,
    DATABASE: path.join(folder, 'application.sqlite'),
    ...admin,
  };
  const [application, ...args] = command;
  start(application, args, env);
  const baseUrl = `http://127.0.0.1:${port}`;
  await answers(`${baseUrl}/login`);
  const script = path.join(import.meta.dirname, 'e2e.mjs');
  status = spawnSync(process.execPath, [script], { env: { ...own, ...admin, BASE_URL: baseUrl }, stdio: 'inherit' }).status ?? 1;
} catch (fault) {
  console.error(String(fault));
} finally {
  for (const child of children.reverse()) await stop(child);
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = status;

function program() {
  if (process.env.CLOAKROOM_BIN) return process.env.CLOAKROOM_BIN;
  const built = path.resolve(import.meta.dirname, '../../target/debug/cloakroom');
  if (existsSync(built)) return built;
  throw new Error('no program `cloakroom`: cargo build -p cloakroom-server, or set CLOAKROOM_BIN');
}

function start(name, args, env) {
  // What both say goes to standard error: the script's own lines are the result.
  const child = spawn(name, args, { env, stdio: ['ignore', 2, 2] });
  child.on('error', (fault) => console.error(`${name}: ${fault.message}`));
  children.push(child);
}

async function stop(child) {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 3_000);
  await ended;
  clearTimeout(timer);
}

async function answers(url) {
  const until = Date.now() + START_TIMEOUT;
  for (;;) {
    const ended = children.find((child) => child.exitCode !== null);
    if (ended) throw new Error(`${ended.spawnargs.join(' ')} ended with ${ended.exitCode}`);
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.ok) return;
    if (Date.now() > until) throw new Error(`${url} doesn't answer`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
