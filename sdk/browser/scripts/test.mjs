// Runs the tests; the last line of the output counts them: `N passed, N failed, N skipped`.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const { status, stdout } = spawnSync(process.execPath, ['--test', '--test-reporter=spec', 'test/'], {
  cwd: root,
  encoding: 'utf8',
  stdio: ['ignore', 'pipe', 'inherit'],
});
process.stdout.write(stdout);
const count = (word) => Number(new RegExp(`^ℹ ${word} (\\d+)`, 'm').exec(stdout)?.[1] ?? 0);
const failed = status === 0 ? 0 : Math.max(1, count('fail') + count('cancelled'));
console.log(`${count('pass')} passed, ${failed} failed, ${count('skipped')} skipped`);
process.exitCode = failed === 0 ? 0 : 1;
