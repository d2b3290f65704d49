// Builds, packs, and runs all tests on the packed artefact, with Express 5 and 4.
// The last line of the output counts them: `N passed, N failed, N skipped`.
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const packed = `${root}.packed`;
const tally = { passed: 0, failed: 0, skipped: 0 };

function check(name, program, args) {
  const { status } = spawnSync(program, args, { cwd: root, stdio: 'inherit' });
  console.log(`${status === 0 ? 'ok' : 'FAILED'}: ${name}`);
  tally[status === 0 ? 'passed' : 'failed'] += 1;
}

function pack() {
  rmSync(packed, { recursive: true, force: true });
  mkdirSync(`${packed}/node_modules/cloakroom-express`, { recursive: true });
  execFileSync('npm', ['pack', '--silent', '--pack-destination', packed], { cwd: root });
  const tarball = readdirSync(packed).find((name) => name.endsWith('.tgz'));
  const target = `${packed}/node_modules/cloakroom-express`;
  execFileSync('tar', ['-xzf', `${packed}/${tarball}`, '-C', target, '--strip-components=1']);
  // Here a bare import finds the packed artefact; in the package's own folder it finds the sources.
  writeFileSync(`${packed}/package.json`, '{ "type": "module", "private": true }\n');
  cpSync(`${root}test`, `${packed}/test`, { recursive: true });
  return `${packed}/${tarball}`;
}

function run(express, files) {
  if (files.length === 0) return;
  console.log(`-- Express ${express}`);
  // Most of their time the tests wait.
  const args = ['--test', '--test-concurrency=3', '--test-reporter=spec', ...files];
  const env = { ...process.env, EXPRESS: String(express) };
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: packed,
    env,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  process.stdout.write(stdout);
  process.stderr.write(stderr);
  const count = (word) => Number(new RegExp(`^ℹ ${word} (\\d+)`, 'm').exec(stdout)?.[1] ?? 0);
  const failed = count('fail') + count('cancelled');
  tally.passed += count('pass');
  tally.failed += status === 0 ? failed : Math.max(1, failed);
  tally.skipped += count('skipped') + count('todo');
}

execFileSync(process.execPath, [`${root}scripts/build.mjs`], { stdio: 'inherit' });
const tarball = pack();
const bin = (name) => `${root}node_modules/.bin/${name}`;
check('publint', bin('publint'), ['--strict']);
// Node 20 and later resolve by `exports`; the resolver of Node 10 needn't.
check('are the types wrong?', bin('attw'), [tarball, '--profile', 'node16']);
// Apart: express-session's types and ours both say what `req.session` is.
for (const door of ['store', 'middleware']) {
  check(`types of an application (${door})`, bin('tsc'), ['-p', `${packed}/test/types/tsconfig.${door}.json`]);
}
const only = process.argv.slice(2);
const all = readdirSync(`${packed}/test`).filter((name) => name.endsWith('.test.mjs'));
const files = all.filter((name) => only.length === 0 || only.some((word) => name.includes(word)));
// What doesn't touch Express needs no second run.
const once = ['units.test.mjs', 'packed.test.mjs', 'vectors.test.mjs', 'readme.test.mjs'];
run(5, files.map((name) => `test/${name}`));
run(4, files.filter((name) => !once.includes(name)).map((name) => `test/${name}`));
console.log(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`);
process.exitCode = tally.failed === 0 ? 0 : 1;
