// Door 1: express-session keeps its own types, and takes the store.
import { CloakroomStore, type CloakroomStoreOptions } from 'cloakroom-express';
import session from 'express-session';

declare module 'express-session' {
  interface SessionData {
    cart: string[];
  }
}

const options: CloakroomStoreOptions = { subject: (data) => data.passport?.user, fallback: new session.MemoryStore() };
export const middleware = session({ secret: 'x', resave: false, saveUninitialized: false, store: new CloakroomStore(options) });
