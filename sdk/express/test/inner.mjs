// The parts of the packed package that aren't exported, for tests of their own.
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const manifest = createRequire(import.meta.url).resolve('cloakroom-express/package.json');

export function inner(name) {
  return import(pathToFileURL(path.join(path.dirname(manifest), `dist/esm/${name}.js`)).href);
}
