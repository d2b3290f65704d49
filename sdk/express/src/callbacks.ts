/** What Node calls back with. */
export type Callback<T = void> = (error?: unknown, value?: T) => void;

/** A promise for those who await it, a call for those who gave a callback; never both raise. */
export function settle<T>(promise: Promise<T>, callback?: Callback<T>): Promise<T> {
  if (!callback) return promise;
  // The caller's own fault in its callback must reach the process, not this chain.
  promise.then(
    (value) => setImmediate(callback, null, value),
    (fault) => setImmediate(callback, fault),
  );
  return promise.catch(() => undefined as T);
}
