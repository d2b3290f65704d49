// The five minutes of the README, as written: in a clean folder, with the packed artefact. Only the
// ports are others, since somebody else may have those.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { eventually, freePort, program } from './authority.mjs';

const manifest = createRequire(import.meta.url).resolve('cloakroom-express/package.json');
const packed = path.resolve(path.dirname(manifest), '../..');
const tarball = readdirSync(packed).find((name) => name.endsWith('.tgz'));
const folder = mkdtempSync(path.join(tmpdir(), 'cloakroom-readme-'));
const running = [];

after(async () => {
  for (const child of running) {
    // Its shell's children as well.
    process.kill(-child.pid, 'SIGKILL');
  }
  rmSync(folder, { recursive: true, force: true });
});

/** The code blocks of the section, in their order. */
function blocks() {
  const readme = readFileSync(path.join(path.dirname(manifest), 'README.md'), 'utf8');
  const [, section] = /^## Five minutes$(.*?)^## /ms.exec(readme);
  return [...section.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(([, language, text]) => ({ language, text }));
}

test('the five minutes of the README work as they are written', { timeout: 240_000 }, async () => {
  const [publicPort, admin, port] = [await freePort(), await freePort(), await freePort()];
  const bin = path.join(folder, 'bin');
  const own = path.join(folder, 'shop');
  for (const made of [bin, own]) await promisify(execFile)('mkdir', [made]);
  symlinkSync(path.resolve(program()), path.join(bin, 'cloakroom'));
  const env = {
    ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(CLOAKROOM|npm)_/.test(name))),
    PATH: `${bin}:${process.env.PATH}`,
    CLOAKROOM_SERVER__PUBLIC: `127.0.0.1:${publicPort}`,
    CLOAKROOM_SERVER__ADMIN: `127.0.0.1:${admin}`,
  };
  const elsewhere = (text) => text.replaceAll('7401', admin).replaceAll('3000', port);
  const start = (text) => {
    const child = spawn('bash', ['-ec', elsewhere(text)], { cwd: own, env, stdio: 'ignore', detached: true });
    running.push(child);
  };
  const run = async (text) => {
    const { stdout } = await promisify(execFile)('bash', ['-c', elsewhere(text)], { cwd: own, env });
    return stdout;
  };
  const [serve, install, app, launch, tries, ...more] = blocks();
  assert.deepEqual(more, [], 'a block that nobody runs');
  start(serve.text);
  assert.match(install.text, / cloakroom-express$/m);
  await run(install.text.replace(/ cloakroom-express$/m, ` ${path.join(packed, tarball)}`));
  assert.equal(app.language, 'js');
  writeFileSync(path.join(own, 'app.mjs'), elsewhere(app.text));
  await eventually(() => assert.ok(existsSync(path.join(own, 'cloakroom-data/root-api.key'))), 30_000);
  start(launch.text);
  await eventually(async () => assert.ok((await fetch(`http://127.0.0.1:${port}/`)).ok), 60_000);

  // What is asked, and what comes of it: a command of the README a line.
  const said = await run(tries.text.replace(/^(curl [^#\n]*)/gm, '$1; echo '));
  const answers = said.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  const [first, login, me, counted, over] = answers;
  const ada = { id: 'ada', email: 'ada@example.com', role: 'user' };
  assert.deepEqual([first.user, first.visits], [undefined, 1], said);
  assert.deepEqual([login, me], [ada, ada], said);
  assert.deepEqual([counted.user, counted.visits], [ada, 3], said);
  assert.deepEqual([over.status, over.code, over.reason], [401, 'session_ended', 'signed_out_everywhere'], said);
  assert.equal(answers.length, 5, said);
});
