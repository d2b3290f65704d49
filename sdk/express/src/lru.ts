/** A map that forgets what was set longest ago once it is full. */
export class Bounded<K, V> {
  readonly #max: number;
  readonly #forgotten: (key: K, value: V) => void;
  readonly #map = new Map<K, V>();

  /** `forgotten` is told what had to go, so that nothing that leads to it is left behind. */
  constructor(max: number, forgotten: (key: K, value: V) => void = () => {}) {
    this.#max = max;
    this.#forgotten = forgotten;
  }

  get(key: K): V | undefined {
    return this.#map.get(key);
  }

  set(key: K, value: V): void {
    this.#map.delete(key);
    this.#map.set(key, value);
    if (this.#map.size > this.#max) {
      const oldest = this.#map.entries().next();
      if (oldest.done) return;
      const [gone, last] = oldest.value;
      this.#map.delete(gone);
      this.#forgotten(gone, last);
    }
  }

  delete(key: K): void {
    this.#map.delete(key);
  }

  clear(): void {
    this.#map.clear();
  }

  get size(): number {
    return this.#map.size;
  }
}
