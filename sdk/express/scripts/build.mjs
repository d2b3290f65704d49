// Builds dist/esm and dist/cjs from the same sources, each with its own types.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const tsc = fileURLToPath(new URL('../node_modules/typescript/bin/tsc', import.meta.url));
const run = (...args) => execFileSync(process.execPath, [tsc, ...args], { cwd: root, stdio: 'inherit' });

rmSync(`${root}dist`, { recursive: true, force: true });
run('-p', '.');
// The nearest package.json decides which module system a file is in.
const copy = `${root}build-cjs`;
rmSync(copy, { recursive: true, force: true });
mkdirSync(copy);
cpSync(`${root}src`, `${copy}/src`, { recursive: true });
writeFileSync(`${copy}/package.json`, '{ "type": "commonjs" }\n');
const config = { extends: '../tsconfig.json', compilerOptions: { rootDir: 'src', outDir: '../dist/cjs' }, include: ['src'] };
writeFileSync(`${copy}/tsconfig.json`, JSON.stringify(config));
run('-p', 'build-cjs');
writeFileSync(`${root}dist/cjs/package.json`, '{ "type": "commonjs" }\n');
rmSync(copy, { recursive: true, force: true });
