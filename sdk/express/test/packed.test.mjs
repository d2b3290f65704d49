import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { test } from 'node:test';
import * as esm from 'cloakroom-express';

const require = createRequire(import.meta.url);
const folder = path.dirname(require.resolve('cloakroom-express/package.json'));

test('what is tested is the packed artefact', () => {
  assert.match(folder, /\.packed[\\/]node_modules[\\/]cloakroom-express$/);
  assert.deepEqual(readdirSync(folder).sort(), ['LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'dist', 'package.json']);
});

test('named exports only, the same by import and by require', () => {
  const cjs = require('cloakroom-express');
  assert.deepEqual(Object.keys(cjs).sort(), Object.keys(esm).sort());
  assert.deepEqual(Object.keys(esm).sort(), [
    'CloakroomError', 'CloakroomStore', 'cloakroom', 'csrf', 'login', 'logout', 'logoutEverywhere', 'problems',
    'rateLimit', 'requireAuth', 'requireClaim', 'requireRecentAuth',
  ]);
});

test('jose is the one dependency', () => {
  const manifest = JSON.parse(readFileSync(path.join(folder, 'package.json')));
  assert.deepEqual(Object.keys(manifest.dependencies), ['jose']);
});

test('by require, a fake works', async () => {
  const { cloakroom, requireAuth } = require('cloakroom-express');
  const express = require('express');
  const app = express();
  app.use(cloakroom.testing.fake({ subject: 'ada' }));
  app.get('/', requireAuth(), (req, res) => res.json(req.user));
  const { body } = await require('supertest')(app).get('/');
  assert.deepEqual(body, { id: 'ada' });
});
