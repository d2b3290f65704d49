/** Milliseconds, or a text like `"15m"`, `"30d"`, `"500ms"`. */
export type Duration = number | string;

const UNITS: Record<string, number> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** In milliseconds. */
export function milliseconds(duration: Duration): number {
  if (typeof duration === 'number' && duration > 0) return duration;
  const match = /^(\d+)(ms|s|m|h|d)$/.exec(String(duration));
  const found = match ? Number(match[1]) * (UNITS[match[2] ?? ''] ?? 0) : 0;
  if (found > 0) return found;
  throw new TypeError(`not a duration: ${duration} (say milliseconds, or "30s", "15m", "7d")`);
}
