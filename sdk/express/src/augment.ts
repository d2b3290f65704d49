import type { Auth } from './carrier.js';
import type { Session } from './session.js';

declare global {
  namespace Express {
    /** The signed-in user: its id and claims. Add your own claims to this interface. */
    interface User {
      id?: string;
      [claim: string]: unknown;
    }

    interface Request {
      /** What you set here is saved at the end of the request. */
      session: Session & Record<string, any>;
      sessionID: string | undefined;
      user?: User;
      /** Who is behind the request, if anybody is signed in. */
      auth: Auth | undefined;
      /** A CSRF token for a form or a header; opens a session if there is none. */
      csrfToken(): Promise<string>;
    }
  }
}

export {};
