// A real authority for tests: the program `cloakroom` with an empty store, on free ports.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

const START_TIMEOUT = 30_000;

/** The program: from `CLOAKROOM_BIN`, else as cargo built it above this folder. */
export function program() {
  if (process.env.CLOAKROOM_BIN) return process.env.CLOAKROOM_BIN;
  for (let folder = import.meta.dirname; ; folder = path.dirname(folder)) {
    const built = path.join(folder, 'target/debug/cloakroom');
    if (existsSync(built)) return built;
    if (folder === path.dirname(folder)) throw new Error('no program `cloakroom`; set CLOAKROOM_BIN');
  }
}

export async function startAuthority({ env = {} } = {}) {
  const data = mkdtempSync(path.join(tmpdir(), 'cloakroom-express-'));
  const [publicPort, adminPort] = [await freePort(), await freePort()];
  const authority = new RunningAuthority(data, publicPort, adminPort, env);
  await authority.start();
  return authority;
}

class RunningAuthority {
  constructor(data, publicPort, adminPort, env) {
    this.data = data;
    this.url = `http://127.0.0.1:${adminPort}`;
    this.publicUrl = `http://127.0.0.1:${publicPort}`;
    this.env = {
      // The program takes every variable of its name for a setting.
      ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('CLOAKROOM_'))),
      CLOAKROOM_SERVER__PUBLIC: `127.0.0.1:${publicPort}`,
      CLOAKROOM_SERVER__ADMIN: `127.0.0.1:${adminPort}`,
      CLOAKROOM_SERVER__ORIGIN: this.publicUrl,
      CLOAKROOM_LOG__LEVEL: 'warn',
      ...env,
    };
  }

  async start() {
    this.child = spawn(program(), ['serve', '--data', this.data], { env: this.env, stdio: 'ignore' });
    this.ended = new Promise((resolve) => this.child.once('exit', resolve));
    const until = Date.now() + START_TIMEOUT;
    while (!(await isReady(this.url))) {
      if (this.child.exitCode !== null) throw new Error(`the authority ended: ${this.child.exitCode}`);
      if (Date.now() > until) throw new Error("the authority doesn't become ready");
      await pause(25);
    }
    this.apiKey = readFileSync(path.join(this.data, 'root-api.key'), 'utf8').trim();
  }

  /** Ends the process; `start` brings it back with what it had stored. */
  async stop(signal = 'SIGKILL') {
    this.child.kill('SIGCONT');
    this.child.kill(signal);
    await this.ended;
  }

  /** Answers nothing until `thaw`, as under a load that it can't stand. */
  async freeze() {
    this.child.kill('SIGSTOP');
    // Every thread of it has to stop first.
    const state = () => readFileSync(`/proc/${this.child.pid}/stat`, 'utf8').replace(/^.*\) /, '')[0];
    while (existsSync('/proc/self/stat') && state() !== 'T') await pause(5);
    await pause(20);
  }

  thaw() {
    this.child.kill('SIGCONT');
  }

  async close() {
    await this.stop();
    rmSync(this.data, { recursive: true, force: true });
  }

  /** A request with the operator's key. */
  async admin(method, path, body) {
    const response = await fetch(`${this.url}/admin/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${this.apiKey}`, 'content-type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    return { status: response.status, body: text === '' ? undefined : JSON.parse(text) };
  }
}

export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Until `check` holds; fails with its last answer. */
export async function eventually(check, within = 5_000) {
  const until = Date.now() + within;
  for (;;) {
    try {
      return await check();
    } catch (fault) {
      if (Date.now() > until) throw fault;
      await pause(20);
    }
  }
}

export function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function isReady(url) {
  return new Promise((resolve) => {
    const request = http.get(`${url}/readyz`, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.setTimeout(2_000, () => request.destroy());
    request.on('error', () => resolve(false));
  });
}
