// The application's own users: SQLite, passwords hashed with scrypt.
import { randomBytes, randomUUID, scrypt, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import sqlite from 'node-sqlite3-wasm';

const COST = { N: 1 << 15, r: 8, p: 1, maxmem: 64 << 20 };
const derive = promisify(scrypt);

export class Users {
  #db;
  /** What an unknown user's password is compared with, so that it takes as long. */
  #nobody = hash(randomUUID());

  constructor(file) {
    this.#db = new sqlite.Database(file);
    this.#db.exec(`CREATE TABLE IF NOT EXISTS users
      (id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, role TEXT NOT NULL, password TEXT NOT NULL)`);
  }

  /** The new user, or undefined if the address is taken. */
  async add(email, password, role = 'user') {
    const user = { id: randomUUID(), email, role };
    const hashed = await hash(password);
    const added = this.#db.run('INSERT OR IGNORE INTO users VALUES (?, ?, ?, ?)', [user.id, email, user.role, hashed]);
    return added.changes === 1 ? user : undefined;
  }

  /** The id behind an address, or undefined. */
  idOf(email) {
    return this.#db.get('SELECT id FROM users WHERE email = ?', [email])?.id;
  }

  /** The user with this password, or undefined. */
  async check(email, password) {
    const found = this.#db.get('SELECT * FROM users WHERE email = ?', [email]);
    const matches = await verify(found?.password ?? (await this.#nobody), password);
    return found && matches ? { id: found.id, email: found.email, role: found.role } : undefined;
  }
}

async function hash(password) {
  const salt = randomBytes(16);
  const key = await derive(password, salt, 32, COST);
  return `${salt.toString('base64url')}.${key.toString('base64url')}`;
}

async function verify(hashed, password) {
  const [salt, key] = hashed.split('.').map((part) => Buffer.from(part, 'base64url'));
  return timingSafeEqual(key, await derive(password, salt, 32, COST));
}
